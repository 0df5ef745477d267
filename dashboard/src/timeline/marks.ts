/** What a timeline is drawn from. Pure data: seconds since the session began, no pixels. */
import type { Execution, Moment, PlanRecord, Proposer, Session, Tier } from '../api/types';
import { duration } from '../format';

export type LaneName = 'conversation' | 'plan' | 'k2' | 'prepare' | 'sandbox' | 'code' | 'other';

/** What a mark's colour stands for. */
export type Tone =
  | 'turn' | 'user' | 'reasoning' | 'answer' | 'code' | 'result'
  | Proposer | 'refused' | 'action'
  | 'prepare' | 'ready' | 'frozen' | 'running'
  | 'lead' | 'wait' | Tier | 'unknown';

/** `bar` lasts, `chip` appears at a time and is a word, `point` is a moment, `lead` is a measured distance. */
export type Shape = 'bar' | 'chip' | 'point' | 'lead';

export interface Segment {
  from: number;
  to: number;
  tone: Tone;
}

export interface Fact {
  name: string;
  value: string;
}

export interface Mark {
  /** Stays the same while the session grows: focus follows it. */
  id: string;
  lane: LaneName;
  shape: Shape;
  from: number;
  to: number;
  /** One after the other, from `from` to `to`. */
  segments: Segment[];
  label: string;
  /** Written instead where there is no room for the label beside the shape. */
  short?: string;
  /** The label is written inside the shape or not at all. */
  labelInside?: boolean;
  /** What the details are headed with, and what a screen reader says. */
  title: string;
  facts: Fact[];
}

/** One session as the API tells it. `now` (Unix seconds) is where what has no end yet is drawn to. */
export interface Story {
  session: Session;
  /** Oldest first. */
  moments: Moment[];
  plans: PlanRecord[];
  executions: Execution[];
  now: number;
}

type Plain = Omit<Mark, 'segments'>;

/** A mark of one colour. */
export function mark(tone: Tone, plain: Plain): Mark {
  return { ...plain, segments: [{ from: plain.from, to: plain.to, tone }] };
}

/** Facts of a moment whatever its kind: detail, duration, and each value of its data. */
export function momentFacts(moment: Moment): Fact[] {
  const facts: Fact[] = [];
  if (moment.duration_ms != null) facts.push({ name: 'Took', value: duration(moment.duration_ms) });
  if (moment.detail !== '') facts.push({ name: 'Detail', value: moment.detail });
  for (const [name, value] of Object.entries(moment.data)) facts.push({ name, value: asText(value) });
  return facts;
}

/** Seconds since `origin` at which a moment began; it ended at `at`. */
export function beginning(moment: Moment, origin: number): number {
  return moment.at - origin - (moment.duration_ms ?? 0) / 1_000;
}

export function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

function asText(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map(asText).join(', ');
  return JSON.stringify(value);
}
