import { CHARACTER, type Placed } from './place';
import styles from './Timeline.module.css';

const TOP = 2;
const HEIGHT = 20;
const MIDDLE = TOP + HEIGHT / 2;
/** However short, it is seen. */
const THINNEST = 4;

export function Shape({ spot }: { spot: Placed }) {
  const { mark, x, width, labelX } = spot;
  if (mark.shape === 'point') {
    return <path className={styles.fill} d={`M${x + 6} ${MIDDLE - 6}l6 6l-6 6l-6 -6z`} />;
  }
  if (mark.shape === 'lead') return <Lead x={x} width={width} gap={spot.anchor === 'middle' ? labelX : null} text={mark.label} />;
  return (
    <>
      {mark.segments.map((segment, index) => {
        const [from, to] = along(spot, segment.from, segment.to, index);
        return (
          <rect
            key={segment.tone}
            className={styles.bar}
            data-tone={segment.tone}
            data-shape={mark.shape}
            x={from}
            y={TOP}
            width={Math.max(to - from, THINNEST)}
            height={HEIGHT}
            rx={mark.shape === 'chip' ? 10 : 3}
          />
        );
      })}
    </>
  );
}

/** Where a segment lies on the mark's own pixels; one too short to see still gets its own few. */
function along({ mark, x, width }: Placed, from: number, to: number, index: number): [number, number] {
  const span = mark.to - mark.from;
  if (span <= 0 || mark.shape === 'chip') return [x + index * THINNEST, x + width];
  const pixel = (seconds: number) => x + ((seconds - mark.from) / span) * width;
  const start = Math.max(pixel(from), x + index * THINNEST);
  return [start, Math.max(pixel(to), start + THINNEST)];
}

/** A measured distance, as in a technical drawing, with room for its words. */
function Lead({ x, width, gap, text }: { x: number; width: number; gap: number | null; text: string }) {
  const end = x + width;
  const half = gap === null ? 0 : (text.length * CHARACTER) / 2 + 5;
  const line = gap === null ? `M${x} ${MIDDLE}H${end}` : `M${x} ${MIDDLE}H${gap - half}M${gap + half} ${MIDDLE}H${end}`;
  return <path className={styles.lead} d={`${line}M${x} ${MIDDLE - 6}v12M${end} ${MIDDLE - 6}v12M${end - 6} ${MIDDLE - 4}l6 4l-6 4`} />;
}
