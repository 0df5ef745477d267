import { useChoice } from '../address';
import { itemsOf, useHost, useSessions } from '../api/queries';
import type { Connection } from '../api/stream';
import { DecisionsSection } from '../decisions/DecisionsSection';
import { ExecutionsSection } from '../executions/ExecutionsSection';
import { SessionList } from '../sessions/SessionList';
import { TimelineSection } from '../timeline/TimelineSection';
import { EmptyState } from './EmptyState';
import { ErrorNote } from './ErrorNote';
import { Header } from './Header';
import styles from './Overview.module.css';

/** The one page: sessions, the timeline and the decisions of the chosen one (or the newest), executions. */
export function Overview({ connection }: { connection: Connection }) {
  const host = useHost();
  const sessions = useSessions();
  const choice = useChoice();
  const list = itemsOf(sessions.data);
  const shown = choice.session ?? list[0]?.id ?? null;
  const listed = list.find(({ id }) => id === shown);
  const capture = host.data?.capture ?? false;
  const empty = sessions.isSuccess && list.length === 0 && choice.session === null;

  return (
    <>
      <Header host={host.data} connection={connection} />
      <main className={empty ? styles.single : styles.columns}>
        {sessions.error && <ErrorNote error={sessions.error} what="The list of sessions" retry={() => void sessions.refetch()} />}
        {empty && <EmptyState host={host.data} />}
        {!empty && (
          <>
            <SessionList sessions={list} choice={choice} more={sessions.hasNextPage ? () => void sessions.fetchNextPage() : null} />
            <div className={styles.content}>
              {/* A new session starts with its own view, no mark chosen and nothing unfolded. */}
              {shown !== null && <TimelineSection key={`timeline ${shown}`} session={shown} listed={listed} />}
              {shown !== null && <DecisionsSection key={`decisions ${shown}`} session={shown} listed={listed} capture={capture} />}
              <ExecutionsSection choice={choice} capture={capture} />
            </div>
          </>
        )}
      </main>
    </>
  );
}
