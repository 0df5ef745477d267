import { duration, percent } from '../format';
import { Disclosure } from '../page/Disclosure';
import { PROPOSERS } from '../timeline/plan';
import { DecisionDetails } from './DecisionDetails';
import styles from './Decisions.module.css';
import type { Decision } from './decisions';
import { PackageChip } from './PackageChip';

interface Props {
  decision: Decision;
  open: boolean;
  toggle: (id: number) => void;
}

const COLUMNS = 8;

export function DecisionRow({ decision, open, toggle }: Props) {
  const details = `decision-${decision.id}`;
  const onlyModules = decision.newModules.length > 0 && decision.packages.length > 0 && !decision.packages.some(({ changed }) => changed);
  return (
    <>
      <tr data-open={open}>
        <td>
          <Disclosure open={open} controls={details} label={`Details of the decision after ${duration(decision.at * 1_000)}`} toggle={() => { toggle(decision.id); }} />
        </td>
        <td data-numeric>{duration(decision.at * 1_000)}</td>
        <td>
          <span className={styles.proposer} data-tone={decision.proposer}>{PROPOSERS[decision.proposer]}</span>
        </td>
        <td>
          <ul className={styles.chips}>
            {decision.packages.length === 0 && <li className={styles.quiet}>{ACTIONS[decision.action]}</li>}
            {decision.packages.map((each) => (
              <PackageChip key={each.name} name={each.name} fate={each.fate} share={each.probability} changed={each.changed} />
            ))}
            {decision.dropped.map((name) => (
              <li key={`dropped ${name}`} className={styles.dropped}>
                <span className="visually-hidden">dropped: </span>
                <s>{name}</s>
              </li>
            ))}
            {onlyModules && <li className={styles.quiet}>now with {decision.newModules.join(', ')}</li>}
          </ul>
        </td>
        <td data-numeric data-minor>{percent(decision.needsCode)}</td>
        <td data-numeric data-minor>{duration(decision.savesMs)}</td>
        <td data-numeric data-minor>{duration(decision.costsMs)}</td>
        <td data-outcome={decision.outcome} className={styles.outcome}>
          {outcomeOf(decision)}
        </td>
      </tr>
      <tr id={details} hidden={!open}>
        {open && (
          <td colSpan={COLUMNS}>
            <DecisionDetails decision={decision} />
          </td>
        )}
      </tr>
    </>
  );
}

const ACTIONS: Record<Decision['action'], string> = {
  provision: 'a sandbox without further packages',
  resize: 'another size',
  release: 'gives the sandbox back',
  nothing: 'no code expected',
};

function outcomeOf({ outcome, readyMs }: Decision): string {
  // Clocks of two machines may disagree: what would have been ready before it was planned says nothing.
  return outcome === 'ready' && readyMs !== null && readyMs >= 0 ? `ready after ${duration(readyMs)}` : outcome;
}
