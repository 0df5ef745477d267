import { flexRender, getCoreRowModel, type RowData, useReactTable } from '@tanstack/react-table';

import type { Execution } from '../api/types';
import { useOpen } from '../page/useOpen';
import { COLUMNS, type ColumnStyle } from './columns';
import styles from './Executions.module.css';
import { ExecutionRow } from './ExecutionRow';

declare module '@tanstack/react-table' {
  // Merged into the library's own interface, which has these type parameters.
  // eslint-disable-next-line @typescript-eslint/no-unused-vars, @typescript-eslint/no-empty-object-type
  interface ColumnMeta<TData extends RowData, TValue> extends ColumnStyle {}
}

export function ExecutionTable({ rows, capture }: { rows: Execution[]; capture: boolean }) {
  const [open, toggle] = useOpen<string>();
  // eslint-disable-next-line react-hooks/incompatible-library -- the React Compiler is not used here
  const table = useReactTable({
    data: rows,
    columns: COLUMNS,
    getCoreRowModel: getCoreRowModel(),
    getRowId: ({ id }) => id,
  });

  return (
    // Scrolls sideways, so the keyboard must reach it.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <div className={styles.scroll} role="region" aria-labelledby="executions-title" tabIndex={0}>
      <table className={styles.table}>
        <thead>
          <tr>
            <th scope="col">
              <span className="visually-hidden">Details</span>
            </th>
            {table.getFlatHeaders().map(({ id, column, getContext }) => (
              <th key={id} scope="col" data-numeric={column.columnDef.meta?.numeric} data-minor={column.columnDef.meta?.minor}>
                {flexRender(column.columnDef.header, getContext())}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.getRowModel().rows.map((row) => (
            <ExecutionRow key={row.id} row={row} open={open.has(row.id)} toggle={toggle} capture={capture} />
          ))}
        </tbody>
      </table>
    </div>
  );
}
