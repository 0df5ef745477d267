import { createColumnHelper } from '@tanstack/react-table';

import type { Execution } from '../api/types';
import { bytes, dateAndTime, duration, timeOfDay } from '../format';
import styles from './Executions.module.css';
import { Packages } from './Packages';
import { TierBadge } from './TierBadge';

/** How a column is set; `minor` ones are left out on narrow screens (the expanded row repeats them). */
export interface ColumnStyle {
  numeric?: boolean;
  minor?: boolean;
}

const column = createColumnHelper<Execution>();

function milliseconds(value: number | null) {
  return <span className={styles.number}>{duration(value)}</span>;
}

export const COLUMNS = [
  column.accessor('created_at', {
    header: 'Time',
    cell: ({ getValue }) => <time title={dateAndTime(getValue())}>{timeOfDay(getValue())}</time>,
  }),
  column.accessor('session', {
    header: 'Session',
    meta: { minor: true },
    cell: ({ getValue }) => (
      <span className={styles.session} title={getValue()}>
        {getValue()}
      </span>
    ),
  }),
  column.accessor('tier', { header: 'Tier', cell: ({ getValue }) => <TierBadge tier={getValue()} /> }),
  column.accessor('verdict', {
    header: 'Verdict',
    cell: ({ row: { original } }) => (
      <span className={styles.verdict} data-verdict={original.verdict ?? 'open'}>
        {original.verdict ?? original.state}
      </span>
    ),
  }),
  column.accessor('predicted', {
    header: 'Predicted',
    meta: { minor: true },
    cell: ({ getValue }) => <Packages names={getValue()} />,
  }),
  column.accessor('needed', {
    header: 'Needed',
    meta: { minor: true },
    cell: ({ getValue }) => <Packages names={getValue()} />,
  }),
  column.accessor('missing', {
    header: 'Missing',
    meta: { minor: true },
    cell: ({ getValue }) => <Packages names={getValue()} missing />,
  }),
  column.accessor('lead_ms', {
    header: 'Lead',
    meta: { numeric: true, minor: true },
    cell: ({ getValue }) => milliseconds(getValue()),
  }),
  column.accessor('wait_ms', {
    header: 'Wait',
    meta: { numeric: true },
    cell: ({ getValue }) => milliseconds(getValue()),
  }),
  column.accessor('run_ms', {
    header: 'Run',
    meta: { numeric: true, minor: true },
    cell: ({ getValue }) => milliseconds(getValue()),
  }),
  column.accessor('peak_memory_bytes', {
    header: 'Memory',
    meta: { numeric: true, minor: true },
    cell: ({ getValue }) => <span className={styles.number}>{bytes(getValue())}</span>,
  }),
];
