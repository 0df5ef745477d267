/** The sandbox lane: the states the session's sandbox went through, one after the other. */
import { duration } from '../format';
import { type Mark, mark, type Story } from './marks';

type State = 'ready' | 'frozen' | 'running';

/** Moments that end a sandbox's life in this session. */
const ENDINGS: ReadonlySet<string> = new Set(['released', 'ended']);
export const SANDBOX_KINDS: ReadonlySet<string> = new Set(['ready', 'frozen', ...ENDINGS]);

const TITLES: Record<State, string> = {
  ready: 'The sandbox stands ready',
  frozen: 'The sandbox stands ready, frozen: it holds memory and burns no CPU',
  running: 'The sandbox runs code',
};

export function sandboxMarks({ session, moments, executions, now }: Story): Mark[] {
  const origin = session.started_at;
  const changes: { at: number; state: State | null }[] = moments
    .filter((moment) => SANDBOX_KINDS.has(moment.kind))
    .map((moment) => ({ at: moment.at, state: ENDINGS.has(moment.kind) ? null : (moment.kind as State) }));
  for (const execution of executions) {
    if (execution.started_at !== null) changes.push({ at: execution.started_at, state: 'running' });
    if (execution.started_at !== null && execution.ended_at !== null) {
      changes.push({ at: execution.ended_at, state: 'ready' });
    }
  }
  changes.sort((one, other) => one.at - other.at);
  const states = changes.filter(({ state }, index) => state !== changes[index - 1]?.state);

  const end = session.ended_at ?? now;
  return states.flatMap(({ at, state }, index) => {
    const until = states[index + 1]?.at ?? Math.max(at, end);
    if (state === null || (until === at && index < states.length - 1)) return [];
    return mark(state, {
      id: `state ${index}`,
      lane: 'sandbox',
      shape: 'bar',
      from: at - origin,
      to: until - origin,
      label: state,
      labelInside: true,
      title: TITLES[state],
      facts: [
        { name: 'For', value: duration((until - at) * 1_000) },
        ...(session.sandbox === null ? [] : [{ name: 'Sandbox', value: session.sandbox }]),
      ],
    });
  });
}
