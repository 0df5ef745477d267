/** The lanes of the timeline, top to bottom, and what each is filled with. */
import { K2_KINDS } from '../decisions/k2';
import { CODE_KINDS, codeMarks } from './code';
import { CONVERSATION_KINDS, conversationMarks } from './conversation';
import { k2Marks } from './k2';
import { beginning, type LaneName, type Mark, mark, momentFacts, shorten, type Story } from './marks';
import { planMarks } from './plan';
import { PREPARE_KINDS, prepareMarks } from './prepare';
import { SANDBOX_KINDS, sandboxMarks } from './sandbox';

export interface LaneTitle {
  name: LaneName;
  title: string;
  says: string;
}

export const LANES: readonly LaneTitle[] = [
  { name: 'conversation', title: 'Conversation', says: 'what streams by' },
  { name: 'plan', title: 'Plan', says: 'packages expected' },
  { name: 'k2', title: 'K2', says: 'asked, answers' },
  { name: 'prepare', title: 'Build', says: 'prepared in advance' },
  { name: 'sandbox', title: 'Sandbox', says: 'standing by' },
  { name: 'code', title: 'Code', says: 'arrives, waits, runs' },
  { name: 'other', title: 'Other', says: 'kinds new to this page' },
];

export function buildMarks(story: Story): Mark[] {
  return [
    ...conversationMarks(story),
    ...planMarks(story),
    ...k2Marks(story),
    ...prepareMarks(story),
    ...sandboxMarks(story),
    ...codeMarks(story),
    ...otherMarks(story),
  ];
}

function otherMarks({ session, moments }: Story): Mark[] {
  return moments.filter((moment) => !isKnown(moment.kind)).map((moment, index) => {
    const from = beginning(moment, session.started_at);
    return mark('unknown', {
      id: `${moment.kind}@${moment.at}#${index}`,
      lane: 'other',
      shape: moment.duration_ms == null ? 'point' : 'bar',
      from,
      to: moment.at - session.started_at,
      label: [moment.kind, shorten(moment.detail, 28)].filter(Boolean).join(' '),
      title: moment.kind,
      facts: momentFacts(moment),
    });
  });
}

function isKnown(kind: string): boolean {
  // The plans themselves are drawn, not the moments that announce them.
  if (kind === 'plan') return true;
  return [CONVERSATION_KINDS, K2_KINDS, PREPARE_KINDS, SANDBOX_KINDS, CODE_KINDS].some((kinds) => kinds.has(kind));
}
