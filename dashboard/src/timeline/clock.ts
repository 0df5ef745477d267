/** The time to which a session's unfinished marks are drawn. */
import { useEffect, useState } from 'react';

import { timeOf } from './plan';
import type { Story } from './marks';

const TICK_MS = 200;
/** Without news for this long the clock stands: whatever was under way may have died. */
const PATIENCE_SECONDS = 60;

type Told = Omit<Story, 'now'>;

/**
 * Unix seconds on the server's clock: the latest thing told and, while something is under way, what has passed here
 * since. Browser and server may disagree about the time of day.
 */
export function useNow(told: Told): number {
  const latest = latestTold(told);
  const open = isUnderWay(told);
  const [passed, setPassed] = useState({ since: latest, seconds: 0 });
  useEffect(() => {
    if (!open) return undefined;
    const start = performance.now();
    const timer = window.setInterval(() => {
      const seconds = (performance.now() - start) / 1_000;
      setPassed({ since: latest, seconds });
      if (seconds > PATIENCE_SECONDS) window.clearInterval(timer);
    }, TICK_MS);
    return () => {
      window.clearInterval(timer);
    };
  }, [latest, open]);
  return latest + (open && passed.since === latest ? passed.seconds : 0);
}

/** A turn, a build or an execution that has begun and not ended. */
export function isUnderWay({ session, moments, plans, executions }: Told): boolean {
  if (session.state === 'ended') return false;
  const turn = moments.findLast((moment) => moment.kind === 'turn_started' || moment.kind === 'turn_ended');
  return (
    turn?.kind === 'turn_started' ||
    plans.some((record) => record.outcome === 'building') ||
    executions.some((execution) => execution.state !== 'done')
  );
}

function latestTold({ session, moments, plans, executions }: Told): number {
  return Math.max(
    session.started_at,
    ...moments.map((moment) => moment.at),
    ...plans.map(timeOf),
    ...executions.map((execution) => execution.ended_at ?? execution.started_at ?? execution.created_at),
  );
}
