/** Which stretch of a session is on screen. Seconds since the session began. */
import type { Mark, Story } from './marks';

export interface Stretch {
  from: number;
  to: number;
}

/** `all` and `turn` follow what happens; a stretch of one's own stays put. */
export type View = 'all' | 'turn' | Stretch;

const SHORTEST = 0.02;
/** A session longer than this opens on its latest turn. */
const LONG_SECONDS = 90;
const LABEL_PIXELS = 230;

/** The stretch that `view` shows on `width` pixels, with room at its right for the last labels. */
export function shown(view: View, marks: Mark[], story: Story, width: number): Stretch {
  if (view !== 'all' && view !== 'turn') return view;
  const all = activity(marks);
  const from = view === 'all' ? all.from : Math.max(all.from, latestTurn(story));
  const span = Math.max(all.to - from, 1);
  const room = Math.min(LABEL_PIXELS, width * 0.35);
  return { from: from - span * 0.02, to: from + span / (1 - room / Math.max(width, 1)) };
}

export function firstView(marks: Mark[]): View {
  const { from, to } = activity(marks);
  return to - from > LONG_SECONDS ? 'turn' : 'all';
}

/** `factor` below 1 zooms in; the second `around` stays where it is on screen. */
export function zoomed({ from, to }: Stretch, factor: number, around: number): Stretch {
  const span = to - from;
  const wanted = Math.max(span * factor, SHORTEST);
  const start = around - ((around - from) / span) * wanted;
  return { from: start, to: start + wanted };
}

/** `share` of the stretch to the right (negative: left). */
export function panned({ from, to }: Stretch, share: number): Stretch {
  const step = (to - from) * share;
  return { from: from + step, to: to + step };
}

/** From the first mark to the last, not counting how long a sandbox stood idle afterwards. */
function activity(marks: Mark[]): Stretch {
  let from = 0;
  let to = 1;
  for (const mark of marks) {
    from = Math.min(from, mark.from);
    to = Math.max(to, mark.lane === 'sandbox' ? mark.from : mark.to);
  }
  return { from, to };
}

/** When the last message of the user came; a turn that answers a tool's result belongs to the one before. */
function latestTurn({ session, moments }: Story): number {
  const user = moments.findLast((moment) => moment.kind === 'user_turn');
  const start = user ?? moments.findLast((moment) => moment.kind === 'turn_started');
  return start ? start.at - session.started_at - 0.5 : 0;
}
