/** The code lane: how long before the code the plan came, how long the code waited, how long it ran. */
import type { Execution } from '../api/types';
import { bytes, duration } from '../format';
import { type Fact, type Mark, mark, type Segment, type Story } from './marks';

/** Kinds that the executions themselves tell better. */
export const CODE_KINDS: ReadonlySet<string> = new Set(['code_arrived', 'execution']);

export function codeMarks({ session, executions, moments, now }: Story): Mark[] {
  const origin = session.started_at;
  const marks = executions.flatMap((execution) => executionMarks(execution, origin, now));
  const told = new Set<unknown>(executions.map(({ id }) => id));
  for (const [index, moment] of moments.entries()) {
    // Only code whose execution is not known yet.
    if (moment.kind !== 'code_arrived' || told.has(moment.data.execution)) continue;
    const at = moment.at - origin;
    marks.push(
      mark('wait', {
        id: `arrived ${index}`, lane: 'code', shape: 'point', from: at, to: at,
        label: 'code arrived', title: 'The code arrived', facts: [],
      }),
    );
  }
  return marks;
}

/** When the code reached its caller (Unix seconds): the execution's creation less the way to sandboxd. */
function arrival(execution: Execution): number {
  return execution.created_at - execution.stages.transport_ms / 1_000;
}

function executionMarks(execution: Execution, origin: number, now: number): Mark[] {
  const arrived = arrival(execution) - origin;
  const marks = [runMark(execution, arrived, now - origin)];
  if (execution.lead_ms !== null && execution.lead_ms > 0) {
    marks.push(
      mark('lead', {
        id: `lead of ${execution.id}`,
        lane: 'code',
        shape: 'lead',
        from: arrived - execution.lead_ms / 1_000,
        to: arrived,
        label: `lead time ${duration(execution.lead_ms)}`,
        title: 'Lead time: from the plan to the arrival of the code',
        facts: [{ name: 'Lead time', value: duration(execution.lead_ms) }],
      }),
    );
  }
  return marks;
}

function runMark(execution: Execution, arrived: number, now: number): Mark {
  const segments: Segment[] = [];
  const waited = arrived + (execution.wait_ms ?? Math.max(0, now - arrived) * 1_000) / 1_000;
  segments.push({ from: arrived, to: waited, tone: 'wait' });
  if (execution.wait_ms !== null) {
    const until = waited + (execution.run_ms ?? Math.max(0, now - waited) * 1_000) / 1_000;
    segments.push({ from: waited, to: until, tone: execution.tier ?? 'unknown' });
  }
  return {
    id: `execution ${execution.id}`,
    lane: 'code',
    shape: 'bar',
    from: arrived,
    to: segments.at(-1)?.to ?? arrived,
    segments,
    label: runLabel(execution),
    short: execution.wait_ms === null ? 'waits…' : `waited ${duration(execution.wait_ms)}`,
    title: `Execution ${execution.id}`,
    facts: runFacts(execution),
  };
}

function runLabel({ tier, verdict, state, wait_ms, run_ms }: Execution): string {
  if (wait_ms === null) return state === 'done' ? (verdict ?? 'done') : 'code waits…';
  const ran = run_ms === null ? 'runs…' : `ran ${duration(run_ms)}`;
  const failed = verdict === null || verdict === 'ok' ? '' : verdict;
  return [tier, `waited ${duration(wait_ms)}`, ran, failed].filter(Boolean).join(' · ');
}

function runFacts(execution: Execution): Fact[] {
  const facts: Fact[] = [
    { name: 'Tier', value: execution.tier ?? 'not known yet' },
    { name: 'Verdict', value: execution.verdict ?? execution.state },
    { name: 'Waited', value: duration(execution.wait_ms) },
    { name: 'Ran', value: duration(execution.run_ms) },
    { name: 'Peak memory', value: bytes(execution.peak_memory_bytes) },
    { name: 'Needed', value: execution.needed.join(', ') || 'standard library only' },
  ];
  if (execution.missing.length > 0) facts.push({ name: 'Missing', value: execution.missing.join(', ') });
  return facts;
}
