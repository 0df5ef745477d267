import type { ReactNode } from 'react';

import type { Host } from '../api/types';
import { bytes } from '../format';
import styles from './Header.module.css';

/** One line about the machine: what isolates, what stands, how much memory is taken. */
export function HostLine({ host }: { host: Host }) {
  return (
    <dl className={styles.host} aria-label="Host">
      <Fact name="Runtime">{host.runtime}</Fact>
      <Fact name="Isolation">{host.isolation}</Fact>
      <Fact name="Sandboxes">{host.sandboxes}</Fact>
      <Fact name="Spares">{host.spares}</Fact>
      <Fact name="Memory">
        <meter
          aria-label="Memory of all sandboxes"
          min={0}
          max={host.memory_budget_bytes}
          high={host.memory_budget_bytes * 0.9}
          value={host.memory_used_bytes}
        />{' '}
        {bytes(host.memory_used_bytes)} of {bytes(host.memory_budget_bytes)}
      </Fact>
    </dl>
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
