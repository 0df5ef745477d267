/** What K2 was asked and what it answered. Pure. The texts are redacted, and empty unless capture is on. */
import type { Moment } from '../api/types';

export interface Answer {
  /** Unix seconds. */
  at: number;
  tookMs: number | null;
  text: string;
  /** `answered`, `kept`, `unreadable`, …: the predictor's word for it. */
  outcome: string;
  action: string;
  packages: string[];
  tokensRead: number | null;
  tokensWritten: number | null;
  cost: number | null;
}

export interface Exchange {
  /** Unix seconds. */
  askedAt: number;
  model: string;
  prompt: string;
  /** Null: it has not answered, or the question was taken back. */
  answer: Answer | null;
}

export const K2_KINDS: ReadonlySet<string> = new Set(['k2_prompt', 'k2_answer']);

/** Oldest first. `moments` are, too. A long prompt comes in parts; an answer belongs to the latest question without one. */
export function exchangesOf(moments: Moment[]): Exchange[] {
  const exchanges: Exchange[] = [];
  for (const moment of moments) {
    if (moment.kind === 'k2_prompt') {
      const last = exchanges.at(-1);
      if (last && last.answer === null && numberOf(moment, 'part', 1) > 1) last.prompt += moment.detail;
      else exchanges.push({ askedAt: moment.at, model: textOf(moment, 'model'), prompt: moment.detail, answer: null });
    } else if (moment.kind === 'k2_answer') {
      const asked = exchanges.findLast(({ answer }) => answer === null);
      if (asked) asked.answer = answerOf(moment);
      else exchanges.push({ askedAt: moment.at - (moment.duration_ms ?? 0) / 1_000, model: textOf(moment, 'model'), prompt: '', answer: answerOf(moment) });
    }
  }
  return exchanges;
}

/** `provision scipy`, `kept`: what came of a question, in a few words. */
export function gist({ answer }: Exchange): string {
  if (answer === null) return 'no answer';
  if (answer.action === '') return answer.outcome || 'answered';
  return [answer.action, answer.packages.join(', ')].filter(Boolean).join(' ');
}

function answerOf(moment: Moment): Answer {
  const { packages } = moment.data;
  return {
    at: moment.at,
    tookMs: moment.duration_ms,
    text: moment.detail,
    outcome: textOf(moment, 'outcome'),
    action: textOf(moment, 'action'),
    packages: Array.isArray(packages) ? packages.filter((name) => typeof name === 'string') : [],
    tokensRead: numberOf(moment, 'tokens_read', null),
    tokensWritten: numberOf(moment, 'tokens_written', null),
    cost: numberOf(moment, 'cost', null),
  };
}

function textOf(moment: Moment, name: string): string {
  const value = moment.data[name];
  return typeof value === 'string' ? value : '';
}

function numberOf<T extends number | null>(moment: Moment, name: string, otherwise: T): number | T {
  const value = moment.data[name];
  return typeof value === 'number' ? value : otherwise;
}
