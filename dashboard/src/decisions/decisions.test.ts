import { describe, expect, it } from 'vitest';

import { execution, moment, plan, session, START, want } from '../testing/samples';
import agreed from './agreed.json';
import { type Decision, decisionsOf, type Told } from './decisions';

function rows(some: Partial<Told>) {
  return decisionsOf({ session: session(), moments: [], plans: [], executions: [], ...some });
}

function decisions(some: Partial<Told>): Decision[] {
  return rows(some).filter((row) => row.kind === 'decision');
}

const PLANS = [
  // Newest first, as the API answers.
  plan(2, 2, [want('pandas', 1), want('matplotlib', 0.6, 'learned', { decision: 'available', saves_ms: 40, costs_ms: 90 }), want('left-pad', 0.2)], {
    refused: { 'left-pad': 'not a popular package' }, ready_at: START + 2.4,
  }),
  plan(1, 1, [want('pandas', 0.7, 'learned', { decision: 'import', saves_ms: 300, costs_ms: 20 }), want('seaborn', 0.3, 'k2')], {
    outcome: 'superseded',
  }),
];

describe('a decision', () => {
  it('stands in order, with who proposed it, its outcome and how long that took', () => {
    expect(decisions({ plans: PLANS }).map(({ id, at, outcome, readyMs }) => [id, at, outcome, Math.round(readyMs ?? -1)])).toEqual([
      [1, 1, 'superseded', -1], [2, 2, 'ready', 400],
    ]);
  });

  it('is timed by sandboxd where its moment is kept: the predictor’s clock may be another machine’s', () => {
    const [first] = decisions({ plans: PLANS, moments: [moment('plan', 1.25, { data: { plan: 1 } })] });
    expect(first?.at).toBe(1.25);
  });

  it('sums what is imported ahead, and nothing that nobody weighed', () => {
    expect(decisions({ plans: PLANS }).map(({ savesMs, costsMs }) => [savesMs, costsMs])).toEqual([[300, 20], [null, null]]);
  });

  it('tells what it changed and what it dropped', () => {
    const [, second] = decisions({ plans: PLANS });
    expect(second?.packages.map(({ name, changed }) => [name, changed])).toEqual([['pandas', true], ['matplotlib', true], ['left-pad', true]]);
    expect(second?.dropped).toEqual(['seaborn']);
    const same = plan(3, 3, PLANS[0]?.plan.wants ?? []);
    expect(decisions({ plans: [same, ...PLANS] })[2]?.packages.some(({ changed }) => changed)).toBe(false);
  });

  it('tells the modules that it asks for anew', () => {
    const importing = (id: number, modules: string[]) => {
      const record = plan(id, id, [want('scikit-learn', 1)]);
      return { ...record, plan: { ...record.plan, modules } };
    };
    const plans = [importing(1, ['sklearn']), importing(2, ['sklearn', 'sklearn.tree'])];
    expect(decisions({ plans }).map(({ newModules }) => newModules)).toEqual([['sklearn'], ['sklearn.tree']]);
  });
});

it('nothing happened before the session began, whatever another clock says', () => {
  const early = execution({ created_at: START - 0.2, needed: ['pandas', 'humanize'] });
  const told = rows({ plans: [plan(1, -3, [want('pandas', 1)])], executions: [early] });
  expect(told.map(({ kind, at }) => [kind, at])).toEqual([['decision', 0], ['miss', 0]]);
  expect(told[0]?.kind === 'decision' && told[0].packages[0]?.use?.at).toBe(0);
});

describe('what came of a package', () => {
  const ended = session({ state: 'ended', ended_at: START + 9 });

  it('is not called unused while older executions are not loaded', () => {
    const plans = [plan(1, 1, [want('pandas', 1)])];
    const fate = (partial: boolean) => decisions({ session: ended, plans, partial })[0]?.packages[0]?.fate;
    expect([fate(false), fate(true)]).toEqual(['unused', 'open']);
  });
  const used = execution({ needed: ['pandas', 'scipy'], missing: ['scipy'], late_imports: ['scipy', 'scipy.stats'], tier: 'partial' });

  it('is told of each in each decision', () => {
    const fates = decisions({ session: ended, plans: PLANS, executions: [used] }).map(({ packages }) => packages.map(({ fate }) => fate));
    expect(fates).toEqual([['used', 'unused'], ['used', 'unused', 'refused']]);
  });

  it('is open while code may still come', () => {
    expect(decisions({ plans: PLANS })[0]?.packages.map(({ fate }) => fate)).toEqual(['open', 'open']);
  });

  it('says which code used it, what that waited for, and whether it was loaded already where that is known', () => {
    const wants = [want('Scikit_Learn', 1), want('scipy', 1)];
    const [only] = decisions({ plans: [plan(1, 1, wants)], executions: [{ ...used, needed: ['scikit-learn', 'scipy'] }] });
    expect(only?.packages.map(({ use }) => use)).toEqual([
      { at: 5, tier: 'partial', waitMs: 2, loaded: null }, { at: 5, tier: 'partial', waitMs: 2, loaded: false },
    ]);
    expect(decisions({ plans: PLANS, executions: [execution({ needed: ['pandas'] })] })[0]?.packages[0]?.use?.loaded).toBe(true);
  });

  it('is a miss, in its place in time, when code needed what was in no plan', () => {
    const all = rows({ session: ended, plans: PLANS, executions: [used] });
    expect(all.map(({ kind }) => kind)).toEqual(['decision', 'decision', 'miss']);
    expect(all[2]).toMatchObject({ at: 5, packages: [{ name: 'scipy', there: false }], tier: 'partial' });
  });

  it('is nothing when the code was refused', () => {
    expect(rows({ executions: [execution({ verdict: 'refused', needed: ['scipy'] })] })).toEqual([]);
  });

  it('is the same as `ephemeral explain` says', () => {
    // tests/cli/test_explain.py reads the same file.
    const plans = agreed.plans.map(({ wants, refused }, index) =>
      plan(index + 1, index + 1, wants.map((name) => want(name, 0.5)), { refused }),
    );
    const executions = agreed.executions.map((needed, index) => execution({ id: `e${index}`, needed, created_at: START + 5 + index }));
    const told = rows({ session: ended, plans, executions });
    const fates = new Map<string, string>();
    for (const row of told) {
      for (const each of row.packages) fates.set(each.name, 'fate' in each ? each.fate : 'missed');
    }
    expect(Object.fromEntries(fates)).toEqual(agreed.fates);
  });
});
