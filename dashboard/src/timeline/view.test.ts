import { describe, expect, it } from 'vitest';

import { moment, session, START } from '../testing/samples';
import { buildMarks } from './lanes';
import { neighbour } from './keyboard';
import type { Story } from './marks';
import { firstView, panned, shown, zoomed } from './view';

function story(...moments: Story['moments']): Story {
  return { session: session({ state: 'ended', ended_at: START + 400 }), moments, plans: [], executions: [], now: START + 100 };
}

const short = story(moment('user_turn', 0), moment('turn_started', 0), moment('turn_ended', 8), moment('ready', 4), moment('ended', 400));
const long = story(
  moment('user_turn', 0), moment('turn_started', 0), moment('turn_ended', 8),
  moment('user_turn', 200), moment('turn_started', 200), moment('turn_ended', 208),
);

describe('what is shown', () => {
  it('is everything, with room for the last label, not counting how long the sandbox stood idle', () => {
    const { from, to } = shown('all', buildMarks(short), short, 1_000);
    expect(from).toBeLessThanOrEqual(0);
    expect(to).toBeGreaterThan(9);
    expect(to).toBeLessThan(12);
  });

  it('is the latest turn at first, once a session is long', () => {
    expect([firstView(buildMarks(short)), firstView(buildMarks(long))]).toEqual(['all', 'turn']);
    expect(shown('turn', buildMarks(long), long, 1_000).from).toBeCloseTo(199.3, 0);
  });

  it('stays put once it was chosen by hand', () => {
    expect(shown({ from: 1, to: 2 }, buildMarks(long), long, 1_000)).toEqual({ from: 1, to: 2 });
  });
});

describe('moving', () => {
  it('zooms around the second under the pointer', () => {
    expect(zoomed({ from: 0, to: 10 }, 0.5, 2)).toEqual({ from: 1, to: 6 });
  });

  it('never zooms in to nothing', () => {
    const { from, to } = zoomed({ from: 0, to: 0.02 }, 0.001, 0);
    expect(to - from).toBeCloseTo(0.02);
  });

  it('pans by a share of what is shown', () => {
    expect(panned({ from: 0, to: 10 }, -0.3)).toEqual({ from: -3, to: 7 });
  });
});

describe('arrow keys', () => {
  const marks = buildMarks(short);
  const user = marks.find(({ label }) => label === 'user');

  it('step along time and down the lanes, and stop at the ends', () => {
    if (!user) throw new Error('no mark for the user’s message');
    expect(neighbour('ArrowRight', marks, user)?.label).toBe('turn 1');
    expect(neighbour('ArrowDown', marks, user)?.label).toBe('ready');
    expect(neighbour('ArrowUp', marks, user)).toBeNull();
    expect(neighbour('x', marks, user)).toBeNull();
  });
});
