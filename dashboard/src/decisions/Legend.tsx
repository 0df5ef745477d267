import styles from './Decisions.module.css';
import { FATES, type ShownFate } from './fates';

export function Legend() {
  return (
    <dl className={styles.legend} aria-label="What the packages’ colours mean">
      {(Object.keys(FATES) as ShownFate[]).map((fate) => (
        <div key={fate}>
          <dt className={styles.chip} data-fate={fate} data-changed="true">{FATES[fate].sign}</dt>
          <dd>{FATES[fate].says}</dd>
        </div>
      ))}
      <div>
        <dt className={styles.chip} data-changed="false">dashed</dt>
        <dd>as in the decision before</dd>
      </div>
      <div>
        <dt>Saves, costs</dt>
        <dd>what importing ahead is expected to save, and what it costs in memory held and CPU</dd>
      </div>
    </dl>
  );
}
