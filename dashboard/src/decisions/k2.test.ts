import { describe, expect, it } from 'vitest';

import { moment } from '../testing/samples';
import { exchangesOf, gist } from './k2';

const asked = (seconds: number, detail: string, part = 1, parts = 1) =>
  moment('k2_prompt', seconds, { detail, data: { part, parts, model: 'k2' } });
const answered = (seconds: number, detail: string, data = {}) => moment('k2_answer', seconds, { detail, duration_ms: 700, data });

describe('what K2 was asked', () => {
  it('is one text, however many parts it came in', () => {
    const [only, more] = exchangesOf([asked(1, 'one ', 1, 2), asked(1, 'two', 2, 2)]);
    expect([only?.prompt, more]).toEqual(['one two', undefined]);
  });

  it('has the answer that came after it; a question that was taken back has none', () => {
    const exchanges = exchangesOf([asked(1, 'first'), asked(2, 'second'), answered(2.7, 'package scipy', { action: 'provision', packages: ['scipy'], outcome: 'answered' })]);
    expect(exchanges.map((exchange) => [exchange.prompt, gist(exchange)])).toEqual([['first', 'no answer'], ['second', 'provision scipy']]);
  });

  it('is told where its question was not kept', () => {
    const [only] = exchangesOf([answered(2, '', { outcome: 'kept', tokens_read: 12 })]);
    expect([only?.prompt, only?.answer?.tokensRead, only && gist(only)]).toEqual(['', 12, 'kept']);
  });
});
