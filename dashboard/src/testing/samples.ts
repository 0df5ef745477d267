/** Messages for tests: whole ones, of which a test names only what it is about. */
import type { Execution, Moment, PlanRecord, Session, Stages } from '../api/types';

export const START = 1_700_000_000;

export function session(some: Partial<Session> = {}): Session {
  return {
    id: 'one', app: '', policy: 'ours', state: 'active', root: 'default', network: [], started_at: START, last_at: START, ended_at: null,
    sandbox: null, executions: 0, builds: 0, wasted: 0, memory_seconds: 0, ...some,
  };
}

/** `seconds` after the session began. */
export function moment(kind: string, seconds: number, some: Partial<Moment> = {}): Moment {
  return { session: 'one', at: START + seconds, kind, duration_ms: null, detail: '', data: {}, ...some };
}

export function plan(
  id: number,
  seconds: number,
  wants: PlanRecord['plan']['wants'],
  some: Partial<PlanRecord> = {},
): PlanRecord {
  return {
    id, session: 'one', accepted: [], refused: {}, outcome: 'ready', ready_at: null, error: '',
    plan: {
      session: 'one', proposer: 'seen', action: 'provision', wants, modules: [], memory_bytes: null, cpus: null,
      disk_bytes: null, timeout_seconds: null, root: null, needs_code: 1, app: '', at: START + seconds,
    },
    ...some,
  };
}

type Want = PlanRecord['plan']['wants'][number];

export function want(name: string, probability: number, proposer: Want['proposer'] = 'seen', some: Partial<Want> = {}): Want {
  return {
    package: name, version: null, probability, proposer, evidence: 'import', decision: null, saves_ms: null, costs_ms: null, ...some,
  };
}

export const NO_STAGES: Stages = {
  transport_ms: 0, find_session_ms: 0, queue_ms: 0, resolve_ms: 0, download_ms: 0, compose_ms: 0, boot_ms: 0,
  restore_ms: 0, preload_ms: 0, thaw_ms: 0, dispatch_ms: 0, import_ms: 0,
};

export function execution(some: Partial<Execution> = {}): Execution {
  return {
    id: 'ex', session: 'one', sandbox: null, source: 'api', language: 'python', state: 'done', verdict: 'ok', tier: 'live', found_by: 'session',
    created_at: START + 5, started_at: START + 5, ended_at: START + 6, wait_ms: 2, run_ms: 998, lead_ms: 4_000,
    stages: NO_STAGES, predicted: [], needed: [], missing: [], late_imports: [], stdout: '', stderr: '', result: null,
    traceback: null, outputs: [], truncated_bytes: 0, error: null, notice: null, peak_memory_bytes: null, cpu_ms: null,
    code_sha256: '', code: null, ...some,
  };
}
