import { expect, it } from 'vitest';

import { execution, plan, START, want } from '../testing/samples';
import { summary } from './summary';

it('tells the lead and the wait of the latest execution, in whichever order they come', () => {
  const text = summary([execution({ id: 'b', wait_ms: 2.1, lead_ms: 5_300, created_at: START + 9 }), execution({ tier: 'cold' })], []);
  expect(text).toBe('The plan came 5.3 s before the code: a sandbox stood ready with everything imported. The code waited 2.1 ms.');
});

it('does not boast where nothing was planned', () => {
  expect(summary([execution({ tier: 'cold', lead_ms: null, wait_ms: 11_300 })], [])).toBe(
    'No plan came before the code: something had to be downloaded first. The code waited 11.3 s.',
  );
});

it('tells what is expected before there is code', () => {
  expect(summary([], [plan(1, 0, [want('pandas', 0.9)])])).toBe('Code is expected to need pandas 90 %. A sandbox stands ready.');
});

it('tells when nothing is', () => {
  const record = plan(1, 0, []);
  expect(summary([], [{ ...record, plan: { ...record.plan, action: 'nothing' } }])).toBe('No code is expected: nothing is prepared.');
  expect(summary([], [])).toBe('No code so far, and nothing is expected yet.');
});
