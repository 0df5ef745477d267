/** The conversation lane: each turn as a bar, and within it what streamed by. */
import type { Moment } from '../api/types';
import { duration, plural } from '../format';
import { beginning, type Fact, type Mark, mark, momentFacts, type Story, type Tone } from './marks';

/** Kinds that arrive in pieces: neighbours of one kind are one bar. */
const STREAMED: Record<string, { tone: Tone; label: string }> = {
  reasoning_text: { tone: 'reasoning', label: 'thinks' },
  assistant_text: { tone: 'answer', label: 'answers' },
  tool_call_started: { tone: 'code', label: 'writes code' },
  code: { tone: 'code', label: 'writes code' },
  code_done: { tone: 'code', label: 'writes code' },
};

const POINTS: Record<string, { tone: Tone; label: string }> = {
  user_turn: { tone: 'user', label: 'user' },
  tool_result: { tone: 'result', label: 'tool result' },
  tool_declared: { tone: 'turn', label: 'tool' },
};

export const CONVERSATION_KINDS: ReadonlySet<string> = new Set([
  'turn_started',
  'turn_ended',
  ...Object.keys(STREAMED),
  ...Object.keys(POINTS),
]);

export function conversationMarks({ session, moments, now }: Story): Mark[] {
  const origin = session.started_at;
  const marks: Mark[] = [];
  let turn: Moment | null = null;
  let turns = 0;
  let streams = 0;
  let points = 0;
  let pieces: Moment[] = [];

  const endPieces = () => {
    if (pieces.length === 0) return;
    marks.push(streamed(pieces, (streams += 1), origin));
    pieces = [];
  };
  const endTurn = (end: Moment | null) => {
    if (turn !== null) marks.push(turnMark(turn, end, turns, origin, now));
    turn = null;
  };

  for (const moment of moments) {
    if (moment.kind === 'turn_started') {
      endPieces();
      endTurn(null);
      turn = moment;
      turns += 1;
    } else if (moment.kind === 'turn_ended') {
      endPieces();
      endTurn(moment);
    } else if (moment.kind in STREAMED) {
      const last = pieces.at(-1);
      const goesOn = last && toneOf(last) === toneOf(moment) && moment.kind !== 'tool_call_started';
      if (!goesOn) endPieces();
      pieces.push(moment);
      if (moment.kind === 'code_done') endPieces();
    } else if (moment.kind in POINTS) {
      marks.push(point(moment, (points += 1), origin));
    }
  }
  endPieces();
  endTurn(null);
  return marks;
}

function toneOf(moment: Moment): Tone | undefined {
  return STREAMED[moment.kind]?.tone;
}

function streamed(pieces: Moment[], number: number, origin: number): Mark {
  const first = pieces[0] as Moment;
  const last = pieces.at(-1) ?? first;
  const { tone, label } = STREAMED[first.kind] ?? { tone: 'unknown', label: first.kind };
  const from = beginning(first, origin);
  const to = last.at - origin;
  const text = pieces.map((piece) => piece.detail).join('');
  const facts: Fact[] = [
    { name: 'Took', value: duration((to - from) * 1_000) },
    { name: 'Length', value: plural(pieces.reduce((sum, { data }) => sum + charactersOf(data), 0), 'character') },
  ];
  if (text !== '') facts.push({ name: 'Text', value: text });
  return mark(tone, {
    id: `stream ${number}`, lane: 'conversation', shape: 'bar', from, to, label, title: `The model ${label}`, facts,
  });
}

/** The shape of a conversation is told as lengths; its text only with capture on. */
function charactersOf(data: Moment['data']): number {
  return typeof data.chars === 'number' ? data.chars : 0;
}

function turnMark(start: Moment, end: Moment | null, number: number, origin: number, now: number): Mark {
  const from = start.at - origin;
  const to = Math.max(from, (end?.at ?? now) - origin);
  const model = typeof start.data.model === 'string' ? start.data.model : '';
  const facts: Fact[] = [{ name: end ? 'Took' : 'So far', value: duration((to - from) * 1_000) }];
  facts.push(...momentFacts(start));
  if (end) facts.push(...momentFacts(end));
  return mark('turn', {
    id: `turn ${number}`,
    lane: 'conversation',
    shape: 'bar',
    from,
    to,
    label: [`turn ${number}`, model].filter(Boolean).join(' · '),
    title: `Turn ${number}: request to the provider until its answer ended`,
    facts,
  });
}

function point(moment: Moment, number: number, origin: number): Mark {
  const { tone, label } = POINTS[moment.kind] ?? { tone: 'unknown', label: moment.kind };
  const name = typeof moment.data.name === 'string' ? moment.data.name : '';
  const at = moment.at - origin;
  return mark(tone, {
    id: `point ${number}`,
    lane: 'conversation',
    shape: 'point',
    from: at,
    to: at,
    label: [label, name].filter(Boolean).join(' '),
    title: moment.kind === 'user_turn' ? 'The user’s message' : label,
    facts: momentFacts(moment),
  });
}
