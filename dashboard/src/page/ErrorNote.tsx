import { RequestError } from '../api/fetch';
import styles from './Notice.module.css';

interface Props {
  error: Error;
  /** What could not be shown, as the start of the sentence: "The timeline". */
  what: string;
  retry: () => void;
}

export function ErrorNote({ error, what, retry }: Props) {
  return (
    <div role="alert" className={styles.error}>
      <p>
        <strong>{what} could not be loaded.</strong> {error.message}
      </p>
      {error instanceof RequestError && error.hint !== '' && <p>{error.hint}</p>}
      <button type="button" onClick={retry}>
        Try again
      </button>
    </div>
  );
}
