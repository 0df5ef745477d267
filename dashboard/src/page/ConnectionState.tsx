import type { Connection } from '../api/stream';
import styles from './Header.module.css';

const WORDS: Record<Connection, string> = {
  connecting: 'Connecting…',
  live: 'Live',
  lost: 'Connection lost, trying again…',
};

export function ConnectionState({ connection }: { connection: Connection }) {
  return (
    <p role="status" className={styles.connection} data-connection={connection}>
      {WORDS[connection]}
    </p>
  );
}
