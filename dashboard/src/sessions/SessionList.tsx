import { Link } from 'react-router';

import { addressOf, type Choice } from '../address';
import type { Session } from '../api/types';
import { SessionItem } from './SessionItem';
import styles from './Sessions.module.css';

interface Props {
  /** Newest first. */
  sessions: Session[];
  choice: Choice;
  /** Loads older sessions; null when all are here. */
  more: (() => void) | null;
}

export function SessionList({ sessions, choice, more }: Props) {
  return (
    <nav className={styles.nav} aria-labelledby="sessions-title">
      <h2 id="sessions-title">Sessions</h2>
      <ul className={styles.list}>
        <li>
          <Link
            className={styles.item}
            to={addressOf({ ...choice, session: null })}
            aria-current={choice.session === null ? 'true' : undefined}
          >
            <span className={styles.name}>Follow the newest</span>
            <span className={styles.quiet}>executions of all sessions</span>
          </Link>
        </li>
        {sessions.map((session) => (
          <SessionItem key={session.id} session={session} choice={choice} />
        ))}
      </ul>
      {more && (
        <button type="button" onClick={more}>
          Show older
        </button>
      )}
    </nav>
  );
}
