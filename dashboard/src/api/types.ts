/** The wire messages by their own names; the shapes come from sandboxd's OpenAPI document. */
import type { components } from './schema';

type Schemas = components['schemas'];

export type Execution = Schemas['Execution'];
export type Host = Schemas['Host'];
export type Live = Schemas['Live'];
export type Moment = Schemas['Moment'];
export type Output = Schemas['Output'];
export type PlanRecord = Schemas['PlanRecord'];
export type Proposer = Schemas['Want']['proposer'];
export type Sandbox = Schemas['Sandbox'];
export type Session = Schemas['Session'];
export type Stages = Schemas['Stages'];
export type Tier = NonNullable<Execution['tier']>;
export type Verdict = NonNullable<Execution['verdict']>;

/** `next` is the `before` value of the following page, null at the end. */
export interface Page<T> {
  items: T[];
  next: string | null;
}

/** Best first: the order of every list, legend and filter. */
export const TIERS: readonly Tier[] = ['live', 'partial', 'snapshot', 'environment', 'wheels', 'cold'];
