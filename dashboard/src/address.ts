/** What is chosen on the page lives in its address, so that a link leads to the same view. */
import { useSearchParams } from 'react-router';

import { TIERS, type Tier } from './api/types';

export interface Choice {
  /** Null: follow the newest session, and list the executions of all. */
  session: string | null;
  /** Null: every tier. */
  tier: Tier | null;
}

export function useChoice(): Choice {
  const [parameters] = useSearchParams();
  const tier = parameters.get('tier');
  return {
    session: parameters.get('session') || null,
    tier: TIERS.find((known) => known === tier) ?? null,
  };
}

/** The address of a choice, for a link. */
export function addressOf(choice: Choice): string {
  const parameters = new URLSearchParams();
  if (choice.session !== null) parameters.set('session', choice.session);
  if (choice.tier !== null) parameters.set('tier', choice.tier);
  const query = parameters.toString();
  return query === '' ? '/' : `/?${query}`;
}
