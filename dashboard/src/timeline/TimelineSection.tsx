import { itemsOf, useExecutions, useMoments, usePlans, useSession } from '../api/queries';
import type { Session } from '../api/types';
import { ErrorNote } from '../page/ErrorNote';
import { SessionTimeline } from './SessionTimeline';
import styles from './Timeline.module.css';

interface Props {
  session: string;
  /** As the list of sessions tells it; asked for when it is too old to be there. */
  listed: Session | undefined;
}

/** Loads what a session's timeline is drawn from. */
export function TimelineSection({ session: id, listed }: Props) {
  const older = useSession(id, listed === undefined);
  const moments = useMoments(id);
  const plans = usePlans(id);
  const executions = useExecutions(id);
  const session = listed ?? older.data;

  const failed = [listed ? null : older, moments, plans, executions].find((query) => query?.error);
  return (
    <section className={styles.section} aria-labelledby="timeline-title">
      {failed?.error && <ErrorNote error={failed.error} what="The timeline" retry={() => void failed.refetch()} />}
      {session && moments.data && plans.data && executions.data ? (
        <SessionTimeline
          session={session}
          moments={moments.data.items}
          plans={plans.data.items}
          executions={itemsOf(executions.data)}
        />
      ) : (
        <h2 id="timeline-title">Session {id}</h2>
      )}
    </section>
  );
}
