import { flexRender, type Row } from '@tanstack/react-table';

import type { Execution } from '../api/types';
import { timeOfDay } from '../format';
import { ExecutionDetails } from './ExecutionDetails';
import styles from './Executions.module.css';

interface Props {
  row: Row<Execution>;
  open: boolean;
  toggle: (id: string) => void;
  capture: boolean;
}

export function ExecutionRow({ row, open, toggle, capture }: Props) {
  const details = `details-${row.id}`;
  const cells = row.getVisibleCells();
  return (
    <>
      <tr data-open={open}>
        <td>
          <button
            type="button"
            className={styles.toggle}
            aria-expanded={open}
            aria-controls={details}
            aria-label={`Details of the execution at ${timeOfDay(row.original.created_at)}`}
            onClick={() => { toggle(row.id); }}
          >
            {open ? '▾' : '▸'}
          </button>
        </td>
        {cells.map(({ id, column, getContext }) => (
          <td key={id} data-numeric={column.columnDef.meta?.numeric} data-minor={column.columnDef.meta?.minor}>
            {flexRender(column.columnDef.cell, getContext())}
          </td>
        ))}
      </tr>
      <tr id={details} hidden={!open}>
        {open && (
          <td colSpan={cells.length + 1}>
            <ExecutionDetails execution={row.original} capture={capture} />
          </td>
        )}
      </tr>
    </>
  );
}
