import type { Execution } from '../api/types';
import { bytes } from '../format';
import styles from './Executions.module.css';
import { RichOutput } from './RichOutput';

/** Code and output of an execution, always as text: none of it is ever read as markup. */
export function OutputOf({ execution, capture }: { execution: Execution; capture: boolean }) {
  const texts = [
    ['Code', execution.code],
    ['stdout', execution.stdout],
    ['stderr', execution.stderr],
    ['Result', execution.result],
    ['Traceback', execution.traceback],
  ].filter((pair): pair is [string, string] => Boolean(pair[1]));

  if (texts.length === 0 && execution.outputs.length === 0) return <NothingKept capture={capture} />;
  return (
    <div className={styles.outputs}>
      {texts.map(([name, text]) => (
        <figure key={name}>
          <figcaption>{name}</figcaption>
          {/* Scrolls, so the keyboard must reach it. */}
          {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
          <pre tabIndex={0}>{text}</pre>
        </figure>
      ))}
      {execution.outputs.map((output, index) => (
        <RichOutput key={index} output={output} />
      ))}
      {execution.truncated_bytes > 0 && (
        <p className={styles.quiet}>{bytes(execution.truncated_bytes)} more of output were dropped.</p>
      )}
    </div>
  );
}

function NothingKept({ capture }: { capture: boolean }) {
  if (capture) return <p className={styles.quiet}>It printed nothing.</p>;
  return (
    <p className={styles.quiet}>
      Code and output are not kept. To keep and show them from now on, start with{' '}
      <code>EPHEMERAL_CAPTURE=1 ephemeral up</code>.
    </p>
  );
}
