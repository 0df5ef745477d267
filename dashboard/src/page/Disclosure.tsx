import styles from './Disclosure.module.css';

interface Props {
  open: boolean;
  /** The id of what it unfolds. */
  controls: string;
  label: string;
  toggle: () => void;
}

/** The button that unfolds what stands behind a row. */
export function Disclosure({ open, controls, label, toggle }: Props) {
  return (
    <button type="button" className={styles.toggle} aria-expanded={open} aria-controls={controls} aria-label={label} onClick={toggle}>
      {open ? '▾' : '▸'}
    </button>
  );
}
