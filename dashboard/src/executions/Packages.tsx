import styles from './Executions.module.css';

/** A cell shows this many names; the expanded row shows all. */
const SHOWN = 4;

export function Packages({ names, missing = false, all = false }: { names: string[]; missing?: boolean; all?: boolean }) {
  if (names.length === 0) return <span className={styles.quiet}>–</span>;
  const shown = all ? names : names.slice(0, SHOWN);
  const rest = names.length - shown.length;
  return (
    <span className={missing ? styles.missing : undefined}>
      {shown.join(', ')}
      {rest > 0 && ` and ${rest} more`}
    </span>
  );
}
