import type { KeyboardEvent } from 'react';

import { duration } from '../format';
import type { Mark } from './marks';
import { type Placed, ROW_HEIGHT } from './place';
import { Shape } from './Shape';
import styles from './Timeline.module.css';

interface Props {
  spot: Placed;
  selected: boolean;
  focusable: boolean;
  select: (id: string) => void;
  hover: (id: string | null) => void;
  onKey: (event: KeyboardEvent, mark: Mark) => void;
}

/** One mark: a shape with its label, which shows its details when pointed at, focused or pressed. */
export function MarkShape({ spot, selected, focusable, select, hover, onKey }: Props) {
  const { mark } = spot;
  return (
    <g
      role="button"
      tabIndex={focusable ? 0 : -1}
      aria-pressed={selected}
      aria-label={`${mark.title}: ${mark.label}, at ${duration(mark.from * 1_000)}`}
      data-mark={mark.id}
      data-tone={mark.segments.at(-1)?.tone}
      className={styles.mark}
      transform={`translate(0 ${spot.row * ROW_HEIGHT})`}
      onClick={() => { select(mark.id); }}
      onFocus={() => { select(mark.id); }}
      onPointerEnter={() => { hover(mark.id); }}
      onPointerLeave={() => { hover(null); }}
      onKeyDown={(event) => { onKey(event, mark); }}
    >
      <Shape spot={spot} />
      <text className={styles.label} x={spot.labelX} y={16} textAnchor={spot.anchor}>
        {spot.label}
      </text>
    </g>
  );
}
