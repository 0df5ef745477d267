import { Link } from 'react-router';

import { addressOf, type Choice } from '../address';
import type { Session } from '../api/types';
import { plural, timeOfDay } from '../format';
import styles from './Sessions.module.css';

export function SessionItem({ session, choice }: { session: Session; choice: Choice }) {
  const wasted = session.wasted > 0 ? `, ${session.wasted} wasted` : '';
  return (
    <li>
      <Link
        className={styles.item}
        to={addressOf({ ...choice, session: session.id })}
        aria-current={choice.session === session.id ? 'true' : undefined}
      >
        <span className={styles.name} title={session.id}>
          {session.id}
        </span>
        <span className={styles.quiet}>
          <span className={styles.state} data-state={session.state}>
            {session.state}
          </span>{' '}
          · {timeOfDay(session.started_at)}
          {session.app !== '' && ` · ${session.app}`}
        </span>
        <span className={styles.quiet}>
          {plural(session.executions, 'execution')} · {plural(session.builds, 'build')}
          {wasted}
        </span>
      </Link>
    </li>
  );
}
