import { useMemo } from 'react';

import { itemsOf, useExecutions, useMoments, usePlans, useSession } from '../api/queries';
import type { Session } from '../api/types';
import { plural } from '../format';
import styles from './Decisions.module.css';
import { decisionsOf } from './decisions';
import { DecisionTable } from './DecisionTable';
import { exchangesOf } from './k2';
import { K2Exchanges } from './K2Exchanges';
import { Legend } from './Legend';

interface Props {
  session: string;
  /** As the list of sessions tells it; asked for when it is too old to be there. */
  listed: Session | undefined;
  capture: boolean;
}

/** Every decision of a session, what spoke for it, what it was to save and cost, and what came of it. */
export function DecisionsSection({ session: id, listed, capture }: Props) {
  // What the timeline is drawn from, too: it says so when one of these fails.
  const older = useSession(id, listed === undefined);
  const moments = useMoments(id).data?.items;
  const plans = usePlans(id).data?.items;
  const { data: pages, hasNextPage: partial } = useExecutions(id);
  const session = listed ?? older.data;

  const rows = useMemo(
    () => (session && moments && plans && pages ? decisionsOf({ session, moments, plans, executions: itemsOf(pages), partial }) : null),
    [session, moments, plans, pages, partial],
  );
  const exchanges = useMemo(() => exchangesOf(moments ?? []), [moments]);
  if (!session || rows === null) return null;
  return (
    <section className={styles.section} aria-labelledby="decisions-title">
      <div className={styles.head}>
        <h2 id="decisions-title">Decisions</h2>
        <p className={styles.quiet}>{plural(plans?.length ?? 0, 'plan')}, the newest last</p>
      </div>
      {rows.length === 0 ? (
        <p className={styles.quiet}>Nothing has been decided yet. A row appears here with the first plan.</p>
      ) : (
        <>
          <DecisionTable rows={rows} />
          {partial && <p className={styles.quiet}>Judged by the latest {itemsOf(pages).length} executions. Older ones can be loaded below.</p>}
          <Legend />
        </>
      )}
      {exchanges.length > 0 && <K2Exchanges exchanges={exchanges} origin={session.started_at} capture={capture} />}
    </section>
  );
}
