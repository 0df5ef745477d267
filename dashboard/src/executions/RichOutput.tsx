import type { Output } from '../api/types';
import styles from './Executions.module.css';

const BASE64 = /^[A-Za-z0-9+/\s]+={0,2}\s*$/;

/** A plot as a picture; every other type, HTML and SVG too, as the text it is made of. */
export function RichOutput({ output }: { output: Output }) {
  if (output.mime === 'image/png' && BASE64.test(output.data)) {
    return (
      <figure>
        <figcaption>image/png</figcaption>
        <img className={styles.image} src={`data:image/png;base64,${output.data}`} alt="Drawn by the code" />
      </figure>
    );
  }
  return (
    <figure>
      <figcaption>{output.mime}</figcaption>
      {/* Scrolls, so the keyboard must reach it. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <pre tabIndex={0}>{output.data}</pre>
    </figure>
  );
}
