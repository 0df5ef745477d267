import { type PointerEvent, useRef } from 'react';

import { panned, type Stretch } from './view';

interface DragHandlers {
  onPointerDown: (event: PointerEvent) => void;
  onPointerMove: (event: PointerEvent) => void;
  onPointerUp: () => void;
  onPointerCancel: () => void;
}

/** Pixels a pointer moves before it drags: less is a click. */
const SLACK = 4;

/** Dragging moves the stretch along. */
export function useDrag(stretch: Stretch, width: number, change: (stretch: Stretch) => void): DragHandlers {
  const start = useRef<{ x: number; stretch: Stretch } | null>(null);
  const end = () => {
    start.current = null;
  };
  return {
    onPointerDown: (event) => {
      if (event.button === 0) start.current = { x: event.clientX, stretch };
    },
    onPointerMove: (event) => {
      if (start.current === null || event.buttons === 0) return;
      const moved = event.clientX - start.current.x;
      if (Math.abs(moved) > SLACK) change(panned(start.current.stretch, -moved / Math.max(width, 1)));
    },
    onPointerUp: end,
    onPointerCancel: end,
  };
}
