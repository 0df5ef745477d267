/** The stages of a wait, in the order in which they happen. */
import type { Stages } from '../api/types';

export interface Stage {
  name: string;
  /** Milliseconds of the stages before it. */
  from: number;
  ms: number;
}

/** Less than this is rounding. */
const UNACCOUNTED_MS = 0.05;

const ORDER: readonly [keyof Stages, string][] = [
  ['transport_ms', 'transport'],
  ['find_session_ms', 'find session'],
  ['queue_ms', 'queue'],
  ['resolve_ms', 'resolve'],
  ['download_ms', 'download'],
  ['compose_ms', 'compose'],
  ['boot_ms', 'boot'],
  ['restore_ms', 'restore'],
  ['preload_ms', 'preload'],
  ['thaw_ms', 'thaw'],
  ['dispatch_ms', 'dispatch'],
  ['import_ms', 'import'],
];

/** Those that took time; `other` is the part of the wait that no stage accounts for. */
export function stagesOf(stages: Stages, wait: number | null): Stage[] {
  const parts: Stage[] = [];
  let sum = 0;
  const add = (name: string, ms: number) => {
    parts.push({ name, from: sum, ms });
    sum += ms;
  };
  for (const [key, name] of ORDER) {
    if (stages[key] > 0) add(name, stages[key]);
  }
  if (wait !== null && wait - sum > UNACCOUNTED_MS) add('other', wait - sum);
  return parts;
}
