import { percent } from '../format';
import styles from './Decisions.module.css';
import { FATES, type ShownFate } from './fates';

interface Props {
  name: string;
  fate: ShownFate;
  share?: number;
  /** New in this decision, or otherwise than in the one before. */
  changed: boolean;
}

/** A package, its colour and sign saying what came of it. */
export function PackageChip({ name, fate, share, changed }: Props) {
  return (
    <li className={styles.chip} data-fate={fate} data-changed={changed}>
      <span aria-hidden="true">{FATES[fate].sign}</span> {name}
      {share !== undefined && <> {percent(share)}</>}
      <span className="visually-hidden">, {FATES[fate].word}</span>
    </li>
  );
}
