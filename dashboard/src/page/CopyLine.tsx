import { useState } from 'react';

import styles from './Notice.module.css';

type Outcome = 'none' | 'copied' | 'failed';

/** A line to paste elsewhere, with a button that copies it. */
export function CopyLine({ text }: { text: string }) {
  const [outcome, setOutcome] = useState<Outcome>('none');

  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setOutcome('copied');
    } catch {
      // Only https and loopback pages may write to the clipboard; the text itself can always be selected.
      setOutcome('failed');
    }
  };

  return (
    <div className={styles.line}>
      {/* Scrolls sideways on a phone, so the keyboard must reach it. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <code tabIndex={0}>{text}</code>
      <button type="button" onClick={() => void copy()} aria-label={`Copy: ${text}`}>
        {outcome === 'copied' ? 'Copied' : 'Copy'}
      </button>
      <span role="status" className="visually-hidden">
        {outcome === 'copied' && 'Copied'}
        {outcome === 'failed' && 'This browser does not let pages copy: select the text instead.'}
      </span>
    </div>
  );
}
