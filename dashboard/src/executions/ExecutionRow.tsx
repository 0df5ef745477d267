import { flexRender, type Row } from '@tanstack/react-table';

import type { Execution } from '../api/types';
import { timeOfDay } from '../format';
import { Disclosure } from '../page/Disclosure';
import { ExecutionDetails } from './ExecutionDetails';

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
          <Disclosure open={open} controls={details} label={`Details of the execution at ${timeOfDay(row.original.created_at)}`} toggle={() => { toggle(row.id); }} />
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
