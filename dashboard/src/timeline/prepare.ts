/** The preparation lane: what was built, mounted, restored or booted, as long as it took. */
import { duration } from '../format';
import { beginning, type Mark, mark, momentFacts, shorten, type Story } from './marks';
import { timeOf } from './plan';

export const PREPARE_KINDS: ReadonlySet<string> = new Set([
  'prepare', 'build', 'resolve', 'download', 'compose', 'mount', 'spare', 'restore', 'preload', 'boot', 'snapshot', 'repair', 'resize',
]);

export function prepareMarks({ session, moments, plans, now }: Story): Mark[] {
  const origin = session.started_at;
  const marks = moments
    .filter((moment) => PREPARE_KINDS.has(moment.kind))
    .map((moment, index) =>
      mark('prepare', {
        id: `${moment.kind}@${moment.at}#${index}`,
        lane: 'prepare',
        shape: moment.duration_ms == null ? 'point' : 'bar',
        from: beginning(moment, origin),
        to: moment.at - origin,
        label: [moment.kind, moment.duration_ms == null ? '' : duration(moment.duration_ms), shorten(moment.detail, 28)]
          .filter(Boolean)
          .join(' '),
        title: `Prepared in advance: ${moment.kind}`,
        facts: momentFacts(moment),
      }),
    );
  for (const record of plans) {
    if (record.outcome !== 'building' || record.plan.action !== 'provision') continue;
    const from = timeOf(record) - origin;
    marks.push(
      mark('prepare', {
        id: `building ${record.id}`,
        lane: 'prepare',
        shape: 'bar',
        from,
        to: Math.max(from, now - origin),
        label: 'preparing…',
        title: 'Being prepared now',
        facts: [{ name: 'For', value: record.accepted.join(', ') || 'the base environment' }],
      }),
    );
  }
  return marks;
}
