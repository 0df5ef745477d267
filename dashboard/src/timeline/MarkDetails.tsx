import { duration } from '../format';
import type { Mark } from './marks';
import styles from './Timeline.module.css';

/** Always in the same place, so that neither pointer nor keyboard has to hold anything open. */
export function MarkDetails({ mark }: { mark: Mark | undefined }) {
  return (
    <div className={styles.details} role="region" aria-label="Details of the mark">
      {mark ? (
        <>
          <h3>
            {mark.title} <span className={styles.quiet}>at {duration(mark.from * 1_000)}</span>
          </h3>
          <dl>
            {mark.facts.map(({ name, value }, index) => (
              <div key={index}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        </>
      ) : (
        <p className={styles.quiet}>Point at a mark, or step to it with the arrow keys, to see its details here.</p>
      )}
    </div>
  );
}
