import { useState } from 'react';

/** Which rows of a table are unfolded, and what folds and unfolds one. */
export function useOpen<Id extends string | number>(): [ReadonlySet<Id>, (id: Id) => void] {
  const [open, setOpen] = useState<ReadonlySet<Id>>(new Set());
  const toggle = (id: Id) => {
    setOpen((before) => {
      const after = new Set(before);
      if (!after.delete(id)) after.add(id);
      return after;
    });
  };
  return [open, toggle];
}
