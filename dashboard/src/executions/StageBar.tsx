import type { Stages } from '../api/types';
import { duration, percent } from '../format';
import styles from './Executions.module.css';
import { stagesOf } from './stages';

const WIDTH = 1_000;

/** What the wait was spent on, as one bar and in words. */
export function StageBar({ stages, wait }: { stages: Stages; wait: number | null }) {
  const parts = stagesOf(stages, wait);
  const total = parts.reduce((sum, { ms }) => sum + ms, 0);
  if (total === 0) return null;
  return (
    <figure className={styles.stages}>
      <figcaption>Waited {duration(wait ?? total)}</figcaption>
      <svg viewBox={`0 0 ${WIDTH} 16`} preserveAspectRatio="none" aria-hidden="true">
        {parts.map(({ name, from, ms }, index) => (
          <rect key={name} data-stage={index % 6} x={(from / total) * WIDTH} width={(ms / total) * WIDTH} height={16} />
        ))}
      </svg>
      <ol>
        {parts.map(({ name, ms }, index) => (
          <li key={name} data-stage={index % 6}>
            {name} <strong>{duration(ms)}</strong> <span className={styles.quiet}>{percent(ms / total)}</span>
          </li>
        ))}
      </ol>
    </figure>
  );
}
