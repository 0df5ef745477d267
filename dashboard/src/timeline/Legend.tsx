import { TIERS } from '../api/types';
import { TierBadge } from '../executions/TierBadge';
import styles from './Timeline.module.css';

/** What the colours of a run mean, best first, and who proposes packages. */
export function Legend() {
  return (
    <dl className={styles.legend} aria-label="Legend">
      <div>
        <dt>What stood ready (tier), best first:</dt>
        {TIERS.map((tier) => (
          <dd key={tier}>
            <TierBadge tier={tier} />
          </dd>
        ))}
      </div>
      <div>
        <dt>Who proposed a package:</dt>
        <dd data-tone="seen" className={styles.chip}>seen in the stream</dd>
        <dd data-tone="learned" className={styles.chip}>learned</dd>
        <dd data-tone="k2" className={styles.chip}>K2</dd>
      </div>
    </dl>
  );
}
