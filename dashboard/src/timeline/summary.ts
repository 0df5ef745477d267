/** The session in a sentence or two, for whoever sees the page for the first time. */
import type { Execution, PlanRecord, Tier } from '../api/types';
import { duration, percent } from '../format';
import { timeOf } from './plan';

const STOOD_READY: Record<Tier, string> = {
  live: 'a sandbox stood ready with everything imported',
  partial: 'a sandbox stood ready and lacked something; only that was added',
  snapshot: 'a snapshot with everything imported was restored',
  environment: 'the packages were there; a sandbox had to boot and import them',
  wheels: 'the downloads were there; they had to be put together',
  cold: 'something had to be downloaded first',
};

/** Both lists in any order. */
export function summary(executions: Execution[], plans: PlanRecord[]): string {
  const done = executions
    .filter((execution) => execution.wait_ms !== null && execution.tier !== null)
    .toSorted((one, other) => one.created_at - other.created_at)
    .at(-1);
  if (done?.tier) {
    const lead =
      done.lead_ms !== null && done.lead_ms > 0
        ? `The plan came ${duration(done.lead_ms)} before the code: `
        : 'No plan came before the code: ';
    return `${lead}${STOOD_READY[done.tier]}. The code waited ${duration(done.wait_ms)}.`;
  }
  if (executions.some((execution) => execution.state !== 'done')) return 'The code has arrived and waits.';

  const plan = plans.toSorted((one, other) => timeOf(one) - timeOf(other) || one.id - other.id).at(-1);
  if (!plan) return 'No code so far, and nothing is expected yet.';
  if (plan.plan.action === 'nothing') return 'No code is expected: nothing is prepared.';
  if (plan.plan.action === 'release') return 'The conversation moved on: its sandbox was given back.';
  const wants = plan.plan.wants.map((want) => `${want.package} ${percent(want.probability)}`).join(', ');
  const expected = wants === '' ? 'Code is expected' : `Code is expected to need ${wants}`;
  return `${expected}. ${plan.outcome === 'ready' ? 'A sandbox stands ready.' : 'It is being prepared.'}`;
}
