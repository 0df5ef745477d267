import { duration } from '../format';
import styles from './Decisions.module.css';
import type { Miss } from './decisions';
import { PackageChip } from './PackageChip';

/** Where a decision should have stood: code came and imported what none had named. */
export function MissRow({ miss }: { miss: Miss }) {
  const absent = miss.packages.some(({ there }) => !there);
  return (
    <tr data-miss>
      <td />
      <td data-numeric>{duration(miss.at * 1_000)}</td>
      <td className={styles.quiet}>nobody</td>
      <td>
        <ul className={styles.chips}>
          {miss.packages.map(({ name }) => (
            <PackageChip key={name} name={name} fate="missed" changed />
          ))}
        </ul>
      </td>
      <td colSpan={3} className={styles.quiet} data-minor>
        {absent ? 'was not there when the code came' : 'was there all the same'}
      </td>
      <td className={styles.outcome}>
        {[miss.tier, miss.waitMs === null ? '' : `waited ${duration(miss.waitMs)}`].filter(Boolean).join(', ')}
      </td>
    </tr>
  );
}
