/** How each fate of a package is shown: never by its colour alone. */
import { duration } from '../format';
import type { Fate, PackageDecision } from './decisions';

export type ShownFate = Fate | 'missed';

export const FATES: Record<ShownFate, { sign: string; word: string; says: string }> = {
  used: { sign: '✓', word: 'used', says: 'used by code' },
  unused: { sign: '○', word: 'unused', says: 'wanted, and not used' },
  open: { sign: '…', word: 'not needed so far', says: 'not needed so far' },
  missed: { sign: '!', word: 'missed', says: 'needed, and in no plan' },
  refused: { sign: '✕', word: 'refused', says: 'refused by the policy' },
};

/** What came of a package, in a sentence. */
export function fateOf({ fate, refusal, use }: PackageDecision): string {
  if (fate === 'refused') return `refused: ${refusal ?? ''}`;
  if (use === null) return fate === 'unused' ? 'no code imported it' : 'no code has imported it so far';
  const served = [use.tier, use.waitMs === null ? null : `waited ${duration(use.waitMs)}`].filter((part) => part !== null).join(', ');
  const loaded = use.loaded === null ? '' : use.loaded ? ', loaded already' : ', loaded while the code waited or ran';
  return `imported by the code after ${duration(use.at * 1_000)}${served === '' ? '' : ` (${served})`}${loaded}`;
}
