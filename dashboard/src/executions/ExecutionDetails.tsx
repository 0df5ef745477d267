import type { ReactNode } from 'react';
import { Link } from 'react-router';

import type { Execution } from '../api/types';
import { bytes, dateAndTime, duration } from '../format';
import styles from './Executions.module.css';
import { OutputOf } from './OutputOf';
import { Packages } from './Packages';
import { StageBar } from './StageBar';

export function ExecutionDetails({ execution, capture }: { execution: Execution; capture: boolean }) {
  return (
    <div className={styles.details}>
      {execution.error !== null && <p className={styles.problem}>{execution.error}</p>}
      <StageBar stages={execution.stages} wait={execution.wait_ms} />
      <dl className={styles.facts}>
        <Fact name="Session">
          <Link to={`/?${new URLSearchParams({ session: execution.session })}`}>{execution.session}</Link> (found by{' '}
          {execution.found_by})
        </Fact>
        <Fact name="Arrived">{dateAndTime(execution.created_at)}</Fact>
        <Fact name="Lead time">{duration(execution.lead_ms)}</Fact>
        <Fact name="Ran">{duration(execution.run_ms)}</Fact>
        <Fact name="Predicted"><Packages names={execution.predicted} all /></Fact>
        <Fact name="Needed"><Packages names={execution.needed} all /></Fact>
        <Fact name="Missing"><Packages names={execution.missing} missing all /></Fact>
        <Fact name="Imported while it ran"><Packages names={execution.late_imports} all /></Fact>
        <Fact name="Peak memory">{bytes(execution.peak_memory_bytes)}</Fact>
        <Fact name="CPU">{duration(execution.cpu_ms)}</Fact>
        <Fact name="Sandbox">{execution.sandbox ?? 'none'}</Fact>
        <Fact name="Came by">{execution.source}</Fact>
      </dl>
      <OutputOf execution={execution} capture={capture} />
    </div>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
