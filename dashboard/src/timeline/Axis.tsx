import type { ScaleLinear } from 'd3-scale';

import { duration } from '../format';
import styles from './Timeline.module.css';

interface Props {
  scale: ScaleLinear<number, number>;
  gutter: number;
  height: number;
  now: number | null;
}

const PIXELS_A_TICK = 110;

/** Seconds since the session began, a line down through all lanes for each, and one for now. */
export function Axis({ scale, gutter, height, now }: Props) {
  const [, width = 0] = scale.range();
  const ticks = scale.ticks(Math.max(2, Math.floor(width / PIXELS_A_TICK))).filter((tick) => tick >= 0);
  const nowX = now === null ? -1 : scale(now);
  return (
    <g aria-hidden="true" transform={`translate(${gutter} 0)`}>
      {ticks.map((tick) => (
        <g key={tick} transform={`translate(${scale(tick)} 0)`}>
          <line className={styles.grid} y1={22} y2={height} />
          <text className={styles.tick} y={15} textAnchor={scale(tick) < 16 ? 'start' : 'middle'}>
            {tick === 0 ? '0 s' : duration(tick * 1_000)}
          </text>
        </g>
      ))}
      {nowX >= 0 && nowX <= width && <line className={styles.now} x1={nowX} x2={nowX} y1={22} y2={height} />}
    </g>
  );
}
