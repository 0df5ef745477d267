/** A session's decisions and what came of them. Pure: the API's messages in, rows out. `ephemeral explain` judges packages alike. */
import type { Execution, Moment, PlanRecord, Proposer, Session, Tier } from '../api/types';
import { timeOf } from '../timeline/plan';

/**
 * `used`: code imported it. `unused`: the session is over, and none did. `open`: none did so far. `refused`: the policy
 * lets nobody have it.
 */
export type Fate = 'used' | 'unused' | 'open' | 'refused';

/** The first code that imported a package. */
export interface Use {
  /** Seconds since the session began. */
  at: number;
  tier: Tier | null;
  waitMs: number | null;
  /** Null where the messages do not tell: what was imported late is told by module. */
  loaded: boolean | null;
}

export interface PackageDecision {
  name: string;
  version: string | null;
  probability: number;
  proposer: Proposer;
  evidence: string;
  /** Null: nobody weighed whether importing it ahead pays, or an older sandboxd has not kept it. */
  decision: 'import' | 'available' | null;
  savesMs: number | null;
  costsMs: number | null;
  refusal: string | null;
  /** The decision before this one said otherwise of it, or nothing. */
  changed: boolean;
  fate: Fate;
  use: Use | null;
}

export interface Decision {
  kind: 'decision';
  id: number;
  at: number;
  proposer: Proposer;
  action: PlanRecord['plan']['action'];
  needsCode: number;
  modules: string[];
  /** Those of them that the decision before did not ask for: often all that a decision changes. */
  newModules: string[];
  memoryBytes: number | null;
  cpus: number | null;
  packages: PackageDecision[];
  /** What the decision before it wanted and this one does not. */
  dropped: string[];
  /** Sums over what is imported ahead; null where nothing was weighed. */
  savesMs: number | null;
  costsMs: number | null;
  outcome: PlanRecord['outcome'];
  /** From the plan to a sandbox that stood ready. */
  readyMs: number | null;
  error: string;
}

/** Code that imported what no decision of the session ever named. */
export interface Miss {
  kind: 'miss';
  id: string;
  at: number;
  packages: { name: string; there: boolean }[];
  tier: Tier | null;
  waitMs: number | null;
}

export interface Told {
  session: Session;
  moments: Moment[];
  /** In any order, like the executions. */
  plans: PlanRecord[];
  executions: Execution[];
  /** There are older executions than these: what none of these imported may have been used all the same. */
  partial?: boolean;
}

/** Decisions and misses, oldest first. */
export function decisionsOf({ session, moments, plans, executions, partial = false }: Told): (Decision | Miss)[] {
  const at = planTimes(moments);
  const origin = session.started_at;
  const unneeded = session.state === 'ended' && !partial ? 'unused' : 'open';
  const oldestFirst = plans.toSorted((one, other) => one.id - other.id);
  const ran = executions.filter(({ verdict }) => verdict !== 'refused').toSorted((one, other) => one.created_at - other.created_at);
  const named = new Set(oldestFirst.flatMap(({ plan, accepted }) => [...plan.wants.map((want) => want.package), ...accepted]).map(normal));

  let before: PlanRecord | null = null;
  const rows: (Decision | Miss)[] = [];
  for (const record of oldestFirst) {
    const made = at.get(record.id) ?? timeOf(record);
    rows.push(decision(record, before, made, session, unneeded, (name) => useOf(name, ran, origin)));
    if (record.plan.action !== 'resize') before = record;
  }
  for (const execution of ran) {
    const packages = execution.needed.filter((name) => !named.has(normal(name)));
    if (packages.length > 0) rows.push(miss(execution, packages, origin));
  }
  return rows.toSorted((one, other) => one.at - other.at);
}

/** As sandboxd's own clock tells it; a plan's `at` is that of the predictor, which may run on another machine. */
function planTimes(moments: Moment[]): Map<unknown, number> {
  return new Map(moments.filter(({ kind }) => kind === 'plan').map((moment) => [moment.data.plan, moment.at]));
}

function decision(
  record: PlanRecord, before: PlanRecord | null, made: number, session: Session, unneeded: Fate, use: (name: string) => Use | null,
): Decision {
  const { plan } = record;
  const packages = plan.wants.map((want): PackageDecision => {
    const past = before?.plan.wants.find((other) => other.package === want.package);
    const refusal = record.refused[want.package] ?? null;
    const used = use(want.package);
    return {
      name: want.package,
      version: want.version,
      probability: want.probability,
      proposer: want.proposer,
      evidence: want.evidence,
      decision: want.decision,
      savesMs: want.saves_ms,
      costsMs: want.costs_ms,
      refusal,
      changed: past?.probability !== want.probability || past.proposer !== want.proposer || past.decision !== want.decision,
      fate: refusal !== null ? 'refused' : used ? 'used' : unneeded,
      use: used,
    };
  });
  const bets = packages.filter((each) => each.decision === 'import');
  const wanted = new Set(plan.wants.map((want) => want.package));
  return {
    kind: 'decision',
    id: record.id,
    at: since(session.started_at, made),
    proposer: plan.proposer,
    action: plan.action,
    needsCode: plan.needs_code,
    modules: plan.modules,
    newModules: plan.modules.filter((module) => !before?.plan.modules.includes(module)),
    memoryBytes: plan.memory_bytes,
    cpus: plan.cpus,
    packages,
    dropped: plan.action === 'resize' ? [] : (before?.plan.wants ?? []).map((want) => want.package).filter((name) => !wanted.has(name)),
    savesMs: sum(bets.map(({ savesMs }) => savesMs)),
    costsMs: sum(bets.map(({ costsMs }) => costsMs)),
    outcome: record.outcome,
    readyMs: record.ready_at === null ? null : (record.ready_at - made) * 1_000,
    error: record.error,
  };
}

function useOf(name: string, ran: Execution[], origin: number): Use | null {
  const first = ran.find(({ needed }) => needed.some((other) => normal(other) === normal(name)));
  if (!first) return null;
  const late = first.late_imports.some((module) => normal(module.split('.')[0] ?? '') === normal(name));
  const nothingLate = first.late_imports.length === 0;
  return { at: since(origin, first.created_at), tier: first.tier, waitMs: first.wait_ms, loaded: late ? false : nothingLate ? true : null };
}

function miss(execution: Execution, names: string[], origin: number): Miss {
  return {
    kind: 'miss',
    id: execution.id,
    at: since(origin, execution.created_at),
    packages: names.map((name) => ({ name, there: !execution.missing.includes(name) })),
    tier: execution.tier,
    waitMs: execution.wait_ms,
  };
}

/** Seconds, never negative: code may open its session, and clocks of two machines may disagree. */
function since(origin: number, at: number): number {
  return Math.max(0, at - origin);
}

/** Null where nothing is known. */
function sum(values: (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((total, value) => total + value, 0);
}

/** One spelling for `Scikit_Learn` and `scikit-learn`, as package indexes have it. */
function normal(name: string): string {
  return name.toLowerCase().replace(/[-_.]+/g, '-');
}
