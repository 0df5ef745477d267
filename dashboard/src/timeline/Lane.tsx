import type { KeyboardEvent } from 'react';

import { MarkShape } from './MarkShape';
import type { Mark } from './marks';
import { ROW_HEIGHT } from './place';
import type { StackedLane } from './stack';
import styles from './Timeline.module.css';

interface Props extends StackedLane {
  width: number;
  gutter: number;
  selected: string | null;
  inTabOrder: string | null;
  select: (id: string) => void;
  hover: (id: string | null) => void;
  onKey: (event: KeyboardEvent, mark: Mark) => void;
}

export function Lane({ title, top, placed, rows, hidden, offset, width, gutter, selected, inTabOrder, ...actions }: Props) {
  const says = hidden > 0 ? `${hidden} more: zoom in` : title.says;
  return (
    <g transform={`translate(0 ${top})`} role="group" aria-label={title.title}>
      <line className={styles.border} x2={width} />
      <text className={styles.laneTitle} x={0} y={18}>
        {title.title}
      </text>
      <text className={styles.laneSays} x={gutter === 0 ? width : 0} y={gutter === 0 ? 18 : 34} textAnchor={gutter === 0 ? 'end' : 'start'}>
        {says}
      </text>
      {/* A nested svg cuts off what reaches beyond the lane's time. */}
      <svg x={gutter} y={offset} width={width - gutter} height={rows * ROW_HEIGHT} className={styles.rows}>
        {placed.map((spot) => (
          <MarkShape
            key={spot.mark.id}
            spot={spot}
            selected={spot.mark.id === selected}
            focusable={spot.mark.id === inTabOrder}
            {...actions}
          />
        ))}
      </svg>
    </g>
  );
}
