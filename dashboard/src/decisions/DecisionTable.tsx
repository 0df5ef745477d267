import { useState } from 'react';

import { useOpen } from '../page/useOpen';
import { DecisionRow } from './DecisionRow';
import styles from './Decisions.module.css';
import type { Decision, Miss } from './decisions';
import { MissRow } from './MissRow';

/** A conversation of hours has hundreds: the latest are drawn, the others when asked for. */
const SHOWN = 40;

export function DecisionTable({ rows }: { rows: (Decision | Miss)[] }) {
  const [all, setAll] = useState(false);
  const [open, toggle] = useOpen<number>();
  const shown = all ? rows : rows.slice(-SHOWN);

  return (
    <>
      {shown.length < rows.length && (
        <button type="button" className={styles.earlier} onClick={() => { setAll(true); }}>
          Show {rows.length - shown.length} earlier
        </button>
      )}
      {/* Scrolls sideways, so the keyboard must reach it. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <div className={styles.scroll} role="group" aria-label="Table of decisions" tabIndex={0}>
        <table className={styles.table} aria-labelledby="decisions-title">
          <thead>
            <tr>
              <th scope="col"><span className="visually-hidden">Details</span></th>
              <th scope="col" data-numeric>After</th>
              <th scope="col">Proposed by</th>
              <th scope="col">Packages, and how likely each is</th>
              <th scope="col" data-numeric data-minor>Code expected</th>
              <th scope="col" data-numeric data-minor>Saves</th>
              <th scope="col" data-numeric data-minor>Costs</th>
              <th scope="col">Outcome</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((row) =>
              row.kind === 'decision' ? (
                <DecisionRow key={row.id} decision={row} open={open.has(row.id)} toggle={toggle} />
              ) : (
                <MissRow key={row.id} miss={row} />
              ),
            )}
          </tbody>
        </table>
      </div>
    </>
  );
}
