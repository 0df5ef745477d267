import { bytes, duration, percent } from '../format';
import { PROPOSERS } from '../timeline/plan';
import styles from './Decisions.module.css';
import type { Decision } from './decisions';
import { fateOf } from './fates';

const DECIDED = { import: 'import ahead', available: 'only make available' };

/** What was weighed for each package, and what the plan asked for besides. */
export function DecisionDetails({ decision }: { decision: Decision }) {
  const facts: [string, string][] = [
    ['Plan', `${decision.id}, ${decision.action}`],
    ['Code expected', percent(decision.needsCode)],
    ['To import', decision.modules.join(', ')],
    ['Memory', decision.memoryBytes === null ? '' : bytes(decision.memoryBytes)],
    ['CPUs', decision.cpus === null ? '' : String(decision.cpus)],
  ];
  return (
    <div className={styles.details}>
      {decision.error !== '' && <p className={styles.problem}>{decision.error}</p>}
      {decision.packages.length > 0 && (
        <table className={styles.table} aria-label={`Packages of the decision after ${duration(decision.at * 1_000)}`}>
          <thead>
            <tr>
              <th scope="col">Package</th>
              <th scope="col">Evidence</th>
              <th scope="col">Proposed by</th>
              <th scope="col" data-numeric>Probability</th>
              <th scope="col">Decision</th>
              <th scope="col" data-numeric>Saves</th>
              <th scope="col" data-numeric>Costs</th>
              <th scope="col">What came of it</th>
            </tr>
          </thead>
          <tbody>
            {decision.packages.map((each) => (
              <tr key={each.name}>
                <th scope="row">{each.version === null ? each.name : `${each.name} ${each.version}`}</th>
                <td>{each.evidence || '–'}</td>
                <td>{PROPOSERS[each.proposer]}</td>
                <td data-numeric>{percent(each.probability)}</td>
                <td className={styles.line}>{each.decision === null ? '–' : DECIDED[each.decision]}</td>
                <td data-numeric>{duration(each.savesMs)}</td>
                <td data-numeric>{duration(each.costsMs)}</td>
                <td className={styles.fate}>{fateOf(each)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      <dl className={styles.facts}>
        {facts.filter(([, value]) => value !== '').map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}
