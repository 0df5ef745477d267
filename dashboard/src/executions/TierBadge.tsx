import type { Tier } from '../api/types';
import styles from './Executions.module.css';

export function TierBadge({ tier }: { tier: Tier | null }) {
  if (tier === null) return <span className={styles.quiet}>not yet</span>;
  return (
    <span className={styles.badge} data-tone={tier}>
      {tier}
    </span>
  );
}
