import type { Connection } from '../api/stream';
import type { Host } from '../api/types';
import { ConnectionState } from './ConnectionState';
import styles from './Header.module.css';
import { HostLine } from './HostLine';

export function Header({ host, connection }: { host: Host | undefined; connection: Connection }) {
  return (
    <header className={styles.header}>
      <div className={styles.brand}>
        <h1>Ephemeral</h1>
        <p>The sandbox stands ready before the code exists.</p>
      </div>
      <ConnectionState connection={connection} />
      {host && <HostLine host={host} />}
    </header>
  );
}
