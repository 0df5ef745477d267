import { scaleLinear } from 'd3-scale';
import { type KeyboardEvent, useCallback, useMemo, useRef } from 'react';

import { Axis } from './Axis';
import { neighbour } from './keyboard';
import { Lane } from './Lane';
import type { Mark } from './marks';
import { stackLanes } from './stack';
import styles from './Timeline.module.css';
import { useDrag } from './useDrag';
import { useWheel } from './useWheel';
import { type Stretch, zoomed } from './view';

/** Below this many pixels a lane's title stands above it instead of beside it. */
const NARROW = 640;
const GUTTER = 132;

interface Props {
  marks: Mark[];
  stretch: Stretch;
  width: number;
  /** Seconds since the session began; null when nothing is under way. */
  now: number | null;
  selected: string | null;
  select: (id: string) => void;
  hover: (id: string | null) => void;
  change: (stretch: Stretch) => void;
}

/** The lanes over one clock. One mark is in the tab order; arrow keys lead to the others. */
export function Timeline({ marks, stretch, width, now, selected, select, hover, change }: Props) {
  const svg = useRef<SVGSVGElement>(null);
  const gutter = width < NARROW ? 0 : GUTTER;
  const { from, to } = stretch;
  const scale = useMemo(() => scaleLinear([from, to], [0, width - gutter]), [from, to, width, gutter]);
  const toSeconds = useCallback(
    (clientX: number) => scale.invert(clientX - (svg.current?.getBoundingClientRect().left ?? 0) - gutter),
    [scale, gutter],
  );
  useWheel(svg, stretch, toSeconds, change);
  const drag = useDrag(stretch, width - gutter, change);

  const { lanes, height } = useMemo(() => stackLanes(marks, scale, width - gutter, gutter === 0), [marks, scale, width, gutter]);
  const inTabOrder = marks.some(({ id }) => id === selected) ? selected : (marks.at(-1)?.id ?? null);

  const onKey = (event: KeyboardEvent, mark: Mark) => {
    const next = neighbour(event.key, marks, mark);
    if (next) {
      select(next.id);
      if (next.from < from || next.from > to) change(centred(stretch, next.from));
      // The mark may only be drawn once the stretch has moved.
      requestAnimationFrame(() => svg.current?.querySelector<SVGElement>(`[data-mark="${CSS.escape(next.id)}"]`)?.focus());
    } else if (event.key === '+' || event.key === '=') change(zoomed(stretch, 0.5, mark.from));
    else if (event.key === '-') change(zoomed(stretch, 2, mark.from));
    else return;
    event.preventDefault();
  };

  return (
    <svg ref={svg} className={styles.svg} width={width} height={height} role="group" aria-label="Timeline" {...drag}>
      <Axis scale={scale} gutter={gutter} height={height} now={now} />
      {lanes.map((lane) => (
        <Lane
          key={lane.title.name}
          {...lane}
          width={width}
          gutter={gutter}
          selected={selected}
          inTabOrder={inTabOrder}
          select={select}
          hover={hover}
          onKey={onKey}
        />
      ))}
    </svg>
  );
}

function centred({ from, to }: Stretch, at: number): Stretch {
  return { from: at - (to - from) / 2, to: at + (to - from) / 2 };
}
