import type { Execution, PlanRecord, Session } from '../api/types';
import { useSandboxes } from '../api/queries';
import { bytes, dateAndTime } from '../format';
import { summary } from './summary';
import styles from './Timeline.module.css';

interface Props {
  session: Session;
  executions: Execution[];
  plans: PlanRecord[];
}

export function Heading({ session, executions, plans }: Props) {
  const sandbox = useSandboxes().data?.items.find(({ id }) => id === session.sandbox);
  return (
    <div className={styles.heading}>
      <h2 id="timeline-title">
        Session <span className={styles.id}>{session.id}</span>
      </h2>
      <p className={styles.quiet}>
        {session.state}, began {dateAndTime(session.started_at)}
        {session.app !== '' && ` · ${session.app}`}
        {sandbox && ` · sandbox ${sandbox.frozen ? 'frozen' : sandbox.state}, ${bytes(sandbox.memory_bytes)}`}
      </p>
      <p className={styles.summary}>{summary(executions, plans)}</p>
    </div>
  );
}
