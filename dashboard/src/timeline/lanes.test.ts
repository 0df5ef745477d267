import { describe, expect, it } from 'vitest';

import { execution, moment, plan, session, START, want } from '../testing/samples';
import { buildMarks } from './lanes';
import type { LaneName, Story } from './marks';

function story(some: Partial<Story>): Story {
  return { session: session(), moments: [], plans: [], executions: [], now: START + 10, ...some };
}

function lane(name: LaneName, some: Partial<Story>) {
  return buildMarks(story(some)).filter((mark) => mark.lane === name);
}

describe('the conversation', () => {
  const moments = [
    moment('turn_started', 0, { data: { model: 'm' } }),
    moment('assistant_text', 1, { data: { chars: 12 } }),
    moment('assistant_text', 1.5, { data: { chars: 30 } }),
    moment('tool_call_started', 2),
    moment('code', 2.5),
    moment('code_done', 3),
    moment('turn_ended', 3.5),
  ];

  it('draws pieces of one kind as one bar, and the turn around them', () => {
    const marks = lane('conversation', { moments });
    expect(marks.map(({ label, from, to }) => [label, from, to])).toEqual([
      ['answers', 1, 1.5], ['writes code', 2, 3], ['turn 1 · m', 0, 3.5],
    ]);
  });

  it('tells how much was said where the text itself is not kept', () => {
    expect(lane('conversation', { moments })[0]?.facts).toContainEqual({ name: 'Length', value: '42 characters' });
  });

  it('lets a turn that has not ended last until now', () => {
    const [turn] = lane('conversation', { moments: [moment('turn_started', 4)] });
    expect([turn?.from, turn?.to]).toEqual([4, 10]);
  });

  it('begins a bar of its own for each call', () => {
    const two = [moment('tool_call_started', 1), moment('code', 2), moment('tool_call_started', 3), moment('code', 4)];
    expect(lane('conversation', { moments: two })).toHaveLength(2);
  });
});

describe('the plan', () => {
  const plans = [
    // Newest first, as the API answers.
    plan(2, 2, [want('pandas', 0.95, 'seen'), want('pandaz', 0.1)], { refused: { pandaz: 'not a known package' } }),
    plan(1, 1, [want('pandas', 0.6, 'learned'), want('scipy', 0.3, 'k2')]),
  ];

  it('shows a package where it first appeared, and how it became likelier', () => {
    const pandas = lane('plan', { plans }).find(({ id }) => id === 'package pandas');
    expect([pandas?.from, pandas?.label, pandas?.segments[0]?.tone]).toEqual([1, 'pandas 60 → 95 % · learned, seen', 'learned']);
  });

  it('says what was dropped and what was refused, with the reason', () => {
    const facts = lane('plan', { plans }).flatMap((mark) => mark.facts.map(({ name, value }) => `${mark.id}: ${name} ${value}`));
    expect(facts).toContain('package scipy: Dropped after 2 s');
    expect(facts).toContain('package pandaz: Refused not a known package');
  });
});

it('K2 has a lane of its own: a bar from the question to the answer, a point without one', () => {
  const moments = [
    moment('k2_prompt', 1, { detail: 'the conversation', data: { model: 'k2', part: 1, parts: 1 } }),
    moment('k2_answer', 3, { duration_ms: 2_000, detail: 'the answer', data: { action: 'provision', packages: ['scipy'], outcome: 'answered' } }),
    moment('k2_prompt', 4, { data: { model: 'k2', part: 1, parts: 1 } }),
  ];
  const marks = lane('k2', { moments });
  expect(marks.map(({ label, from, to, shape }) => [label, from, to, shape])).toEqual([
    ['provision scipy · 2 s', 1, 3, 'bar'], ['no answer', 4, 4, 'point'],
  ]);
  expect(lane('other', { moments })).toEqual([]);
});

describe('preparation', () => {
  it('ended when it was told and began its duration before', () => {
    const [mount] = lane('prepare', { moments: [moment('mount', 3, { duration_ms: 500 })] });
    expect([mount?.from, mount?.to]).toEqual([2.5, 3]);
  });

  it('has the spare sandbox that was taken, too', () => {
    const moments = [moment('spare', 3, { duration_ms: 20 })];
    expect([lane('prepare', { moments }).map(({ label }) => label), lane('other', { moments })]).toEqual([['spare 20 ms'], []]);
  });

  it('goes on until now while a plan is building', () => {
    const [building] = lane('prepare', { plans: [plan(1, 4, [], { outcome: 'building' })] });
    expect([building?.from, building?.to, building?.label]).toEqual([4, 10, 'preparing…']);
  });
});

it('the sandbox is in one state at a time, and in none after its end', () => {
  const moments = [moment('ready', 1), moment('ready', 2), moment('frozen', 3), moment('released', 8)];
  const states = lane('sandbox', { moments, executions: [execution()] });
  expect(states.map(({ label, from, to }) => [label, from, to])).toEqual([
    ['ready', 1, 3], ['frozen', 3, 5], ['running', 5, 6], ['ready', 6, 8],
  ]);
});

describe('the code', () => {
  it('shows lead time, wait and run end to end', () => {
    const marks = lane('code', { executions: [execution({ wait_ms: 500, run_ms: 250, tier: 'partial' })] });
    const run = marks.find(({ id }) => id === 'execution ex');
    const lead = marks.find(({ id }) => id === 'lead of ex');
    expect([lead?.from, lead?.to]).toEqual([1, 5]);
    expect(run?.segments).toEqual([
      { from: 5, to: 5.5, tone: 'wait' }, { from: 5.5, to: 5.75, tone: 'partial' },
    ]);
    expect(run?.label).toBe('partial · waited 500 ms · ran 250 ms');
  });

  it('waits until now while nothing runs it', () => {
    const waiting = execution({ state: 'preparing', wait_ms: null, run_ms: null, lead_ms: null, tier: null, verdict: null });
    const [run] = lane('code', { executions: [waiting] });
    expect([run?.label, run?.to]).toEqual(['code waits…', 10]);
  });
});

describe('code that has arrived', () => {
  const moments = [moment('code_arrived', 5, { data: { execution: 'ex' } })];

  it('is marked until its execution is told', () => {
    expect(lane('code', { moments }).map(({ label }) => label)).toEqual(['code arrived']);
    expect(lane('code', { moments, executions: [execution()] }).map(({ label }) => label)).not.toContain('code arrived');
  });
});

it('draws a kind it has never heard of, with all it says', () => {
  const [unknown] = lane('other', { moments: [moment('teleport', 2, { detail: 'to Mars', data: { crew: ['a', 'b'], ok: true } })] });
  expect(unknown?.label).toBe('teleport to Mars');
  expect(unknown?.facts.map(({ value }) => value)).toEqual(['to Mars', 'a, b', 'true']);
});

it('gives every mark a name of its own', () => {
  const same = [moment('mount', 1), moment('mount', 1), moment('user_turn', 1), moment('user_turn', 1)];
  const ids = buildMarks(story({ moments: same })).map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
});
