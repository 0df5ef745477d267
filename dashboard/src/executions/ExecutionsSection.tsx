import { useMemo } from 'react';
import { Link } from 'react-router';

import { addressOf, type Choice } from '../address';
import { itemsOf, useExecutions } from '../api/queries';
import { ErrorNote } from '../page/ErrorNote';
import styles from './Executions.module.css';
import { ExecutionTable } from './ExecutionTable';
import { TierFilter } from './TierFilter';

/** The ledger: executions of the chosen session, or of all, newest first. */
export function ExecutionsSection({ choice, capture }: { choice: Choice; capture: boolean }) {
  const executions = useExecutions(choice.session);
  const rows = useMemo(
    () => itemsOf(executions.data).filter(({ tier }) => choice.tier === null || tier === choice.tier),
    [executions.data, choice.tier],
  );
  return (
    <section className={styles.section} aria-labelledby="executions-title">
      <div className={styles.head}>
        <h2 id="executions-title">Executions {choice.session === null ? 'of all sessions' : `of ${choice.session}`}</h2>
        {choice.session !== null && <Link to={addressOf({ ...choice, session: null })}>Show all sessions</Link>}
        <TierFilter choice={choice} />
      </div>
      {executions.error && <ErrorNote error={executions.error} what="The executions" retry={() => void executions.refetch()} />}
      {rows.length > 0 && <ExecutionTable rows={rows} capture={capture} />}
      {executions.isSuccess && rows.length === 0 && <NoRows choice={choice} />}
      {executions.hasNextPage && (
        <button type="button" onClick={() => void executions.fetchNextPage()}>
          Show older
        </button>
      )}
    </section>
  );
}

function NoRows({ choice }: { choice: Choice }) {
  return (
    <p className={styles.quiet}>
      {choice.tier === null
        ? 'No code has run yet. A row appears here the moment code arrives.'
        : `No execution listed here was served ${choice.tier}. Choose “all tiers” to see the others.`}
    </p>
  );
}
