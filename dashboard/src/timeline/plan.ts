/** The plan lane: a chip for each package, standing where it first entered a plan. */
import type { PlanRecord, Proposer } from '../api/types';
import { duration, percent } from '../format';
import { type Fact, type Mark, mark, type Story } from './marks';

export const PROPOSERS: Record<Proposer, string> = { seen: 'seen', learned: 'learned', k2: 'K2' };

interface Appearance {
  at: number;
  probability: number;
  proposer: Proposer;
  evidence: string;
}

interface Expected {
  history: Appearance[];
  refusal: string | null;
  droppedAt: number | null;
}

export function planMarks({ session, plans }: Story): Mark[] {
  const oldestFirst = plans.toSorted((one, other) => timeOf(one) - timeOf(other) || one.id - other.id);
  const origin = session.started_at;
  const marks: Mark[] = [];
  for (const [name, expected] of expectedPackages(oldestFirst, origin)) marks.push(packageMark(name, expected));
  for (const record of oldestFirst) {
    if (record.plan.action !== 'provision') marks.push(actionMark(record, origin));
  }
  return marks;
}

/** When a plan was made, Unix seconds; a plan that does not say counts from the moment it stood ready. */
export function timeOf(record: PlanRecord): number {
  return record.plan.at || record.ready_at || 0;
}

function expectedPackages(oldestFirst: PlanRecord[], origin: number): Map<string, Expected> {
  const packages = new Map<string, Expected>();
  for (const record of oldestFirst) {
    const at = timeOf(record) - origin;
    for (const want of record.plan.wants) {
      const expected = packages.get(want.package) ?? { history: [], refusal: null, droppedAt: null };
      packages.set(want.package, expected);
      expected.refusal = record.refused[want.package] ?? null;
      expected.droppedAt = null;
      const last = expected.history.at(-1);
      if (last?.probability !== want.probability || last.proposer !== want.proposer) {
        expected.history.push({ at, probability: want.probability, proposer: want.proposer, evidence: want.evidence });
      }
    }
    for (const [name, expected] of packages) {
      if (!record.plan.wants.some((want) => want.package === name)) expected.droppedAt ??= at;
    }
  }
  return packages;
}

function packageMark(name: string, { history, refusal, droppedAt }: Expected): Mark {
  const first = history[0] as Appearance;
  const last = history.at(-1) ?? first;
  const facts: Fact[] = history.map((step) => ({
    name: `After ${duration(step.at * 1_000)}`,
    value: `${percent(step.probability)}, ${PROPOSERS[step.proposer]}${step.evidence ? ` (${step.evidence})` : ''}`,
  }));
  if (droppedAt !== null) facts.push({ name: 'Dropped', value: `after ${duration(droppedAt * 1_000)}` });
  if (refusal !== null) facts.push({ name: 'Refused', value: refusal });
  const rise = first.probability === last.probability ? '' : `${Math.round(first.probability * 100)} → `;
  const proposers = [...new Set(history.map(({ proposer }) => PROPOSERS[proposer]))].join(', ');
  return mark(refusal === null ? first.proposer : 'refused', {
    id: `package ${name}`,
    lane: 'plan',
    shape: 'chip',
    from: first.at,
    to: first.at,
    label: `${name} ${refusal === null ? rise + percent(last.probability) : 'refused'} · ${proposers}`,
    title: `Package ${name}`,
    facts,
  });
}

function actionMark(record: PlanRecord, origin: number): Mark {
  const { action, proposer } = record.plan;
  const at = timeOf(record) - origin;
  const label = action === 'nothing' ? 'expects no code' : action;
  return mark('action', {
    id: `plan ${record.id}`,
    lane: 'plan',
    shape: 'chip',
    from: at,
    to: at,
    label: `${label} · ${PROPOSERS[proposer]}`,
    title: `Plan: ${label}`,
    facts: [
      { name: 'Proposed by', value: PROPOSERS[proposer] },
      { name: 'Code will be needed', value: percent(record.plan.needs_code) },
      { name: 'Outcome', value: record.outcome },
    ],
  });
}
