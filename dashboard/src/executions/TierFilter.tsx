import { Link } from 'react-router';

import { addressOf, type Choice } from '../address';
import { TIERS } from '../api/types';
import styles from './Executions.module.css';

/** Links, so that a filtered list has an address. */
export function TierFilter({ choice }: { choice: Choice }) {
  return (
    <nav aria-label="Filter by tier" className={styles.filter}>
      <Link to={addressOf({ ...choice, tier: null })} aria-current={choice.tier === null ? 'true' : undefined}>
        all tiers
      </Link>
      {TIERS.map((tier) => (
        <Link
          key={tier}
          data-tone={tier}
          to={addressOf({ ...choice, tier })}
          aria-current={choice.tier === tier ? 'true' : undefined}
        >
          {tier}
        </Link>
      ))}
    </nav>
  );
}
