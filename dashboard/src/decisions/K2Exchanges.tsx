import { duration } from '../format';
import styles from './Decisions.module.css';
import { type Exchange, gist } from './k2';

interface Props {
  exchanges: Exchange[];
  /** When the session began, Unix seconds. */
  origin: number;
  capture: boolean;
}

/** What K2 was asked and said, redacted, as text: none of it is ever read as markup. */
export function K2Exchanges({ exchanges, origin, capture }: Props) {
  const silent = exchanges.every(({ prompt, answer }) => prompt === '' && (answer?.text ?? '') === '');
  return (
    <div className={styles.k2}>
      <h3>What K2 was asked, and what it answered</h3>
      {exchanges.map((exchange, index) => (
        <details key={index}>
          <summary>
            <span className={styles.number}>{duration(Math.max(0, exchange.askedAt - origin) * 1_000)}</span>
            <span className={styles.proposer} data-tone="k2">{gist(exchange)}</span>
            <span className={styles.quiet}>{account(exchange)}</span>
          </summary>
          {exchange.prompt !== '' && <Transcript name="Asked" text={exchange.prompt} />}
          {exchange.answer !== null && exchange.answer.text !== '' && <Transcript name="Answered" text={exchange.answer.text} />}
          {exchange.prompt === '' && (exchange.answer?.text ?? '') === '' && <p className={styles.quiet}>Its text was not kept.</p>}
        </details>
      ))}
      {silent && !capture && (
        <p className={styles.quiet}>
          Its texts are not kept. To keep and show them from now on, redacted, start with <code>EPHEMERAL_CAPTURE=1 ephemeral up</code>.
        </p>
      )}
    </div>
  );
}

function Transcript({ name, text }: { name: string; text: string }) {
  return (
    <figure>
      <figcaption>{name}</figcaption>
      {/* Scrolls, so the keyboard must reach it. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <pre tabIndex={0}>{text}</pre>
    </figure>
  );
}

function account({ model, answer }: Exchange): string {
  if (answer === null) return model;
  const tokens = answer.tokensRead === null ? '' : `${answer.tokensRead} tokens read, ${answer.tokensWritten ?? 0} written`;
  const cost = answer.cost === null ? '' : `cost ${answer.cost}`;
  return [model, answer.tookMs === null ? '' : duration(answer.tookMs), tokens, cost].filter(Boolean).join(' · ');
}
