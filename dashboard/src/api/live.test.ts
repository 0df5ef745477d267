import { describe, expect, it } from 'vitest';

import { execution, moment, plan, session, START } from '../testing/samples';
import { applyLive, withMoment, withNewest } from './live';
import { createQueryClient, keys } from './queries';
import type { Execution, Live, Moment, Page } from './types';

const NOTHING = { moment: null, session: null, plan: null, execution: null, sandbox: null, host: null };

function pages<T>(...items: T[][]) {
  return { pages: items.map((page) => ({ items: page, next: null })), pageParams: items.map(() => null) };
}

describe('a list, newest first', () => {
  it('takes what is new at its head', () => {
    const after = withNewest(pages([session({ id: 'old' })]), session({ id: 'new' }));
    expect(after.pages[0]?.items.map(({ id }) => id)).toEqual(['new', 'old']);
  });

  it('replaces what it knows where it stands, in whichever page', () => {
    const before = pages([session({ id: 'b' })], [session({ id: 'a' })]);
    const after = withNewest(before, session({ id: 'a', state: 'ended' }));
    expect(after.pages.map(({ items }) => items.map(({ id, state }) => `${id} ${state}`))).toEqual([['b active'], ['a ended']]);
  });
});

describe('moments, oldest first', () => {
  const page: Page<Moment> = { items: [moment('ready', 1), moment('frozen', 3)], next: null };

  it('stand in the order of their time, not of their arrival', () => {
    expect(withMoment(page, moment('mount', 2)).items.map(({ kind }) => kind)).toEqual(['ready', 'mount', 'frozen']);
  });

  it('are not counted twice', () => {
    expect(withMoment(page, moment('ready', 1))).toBe(page);
  });

  it('may share their time', () => {
    expect(withMoment(page, moment('mount', 3)).items).toHaveLength(3);
  });
});

describe('an event of the stream', () => {
  it('reaches both the executions of its session and those of all', () => {
    const client = createQueryClient();
    client.setQueryData(keys.executions(null), pages<Execution>([]));
    client.setQueryData(keys.executions('one'), pages<Execution>([]));
    applyLive(client, { ...NOTHING, kind: 'execution', execution: execution() });
    for (const key of [keys.executions(null), keys.executions('one')]) {
      expect(client.getQueryData<ReturnType<typeof pages<Execution>>>(key)?.pages[0]?.items).toHaveLength(1);
    }
  });

  it('changes nothing that was never asked for', () => {
    const client = createQueryClient();
    const events: Live[] = [
      { ...NOTHING, kind: 'moment', moment: moment('ready', 1) },
      { ...NOTHING, kind: 'plan', plan: plan(1, 1, []) },
      { ...NOTHING, kind: 'session', session: session({ last_at: START }) },
    ];
    for (const event of events) applyLive(client, event);
    expect(client.getQueryCache().getAll().filter(({ state }) => state.data !== undefined)).toEqual([]);
  });
});
