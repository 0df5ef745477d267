/** From seconds to pixels: where each mark and its label stand in a lane, and in which row so that none overlap. */
import type { Mark } from './marks';

export const ROW_HEIGHT = 24;
const MAX_ROWS = 10;
const GAP = 6;
const MIN_BAR = 4;
const POINT = 12;
/** Pixels a character takes, on average. */
export const CHARACTER = 6.5;
const PADDING = 6;

export interface Placed extends Spot {
  mark: Mark;
  row: number;
}

interface Spot {
  /** Left edge and width of the shape. */
  x: number;
  width: number;
  label: string;
  labelX: number;
  anchor: 'start' | 'middle' | 'end';
  /** From where to where shape and label take the row. */
  left: number;
  right: number;
}

export interface PlacedLane {
  placed: Placed[];
  rows: number;
  /** Marks that found no row: zooming in shows them. */
  hidden: number;
}

/** `scale` maps seconds to pixels; what lies wholly outside 0…`width` is left out. */
export function placeLane(marks: Mark[], scale: (seconds: number) => number, width: number): PlacedLane {
  const rowEnds: number[] = [];
  const placed: Placed[] = [];
  let hidden = 0;
  const inOrder = marks.toSorted((one, other) => one.from - other.from || other.to - one.to);
  for (const mark of inOrder) {
    const spot = spotOf(mark, scale, width);
    if (spot === null) continue;
    let row = rowEnds.findIndex((end) => end <= spot.left);
    if (row < 0) row = rowEnds.length;
    if (row >= MAX_ROWS) {
      hidden += 1;
      continue;
    }
    // Neighbours in time may touch; only a label keeps its distance.
    rowEnds[row] = spot.right;
    placed.push({ mark, row, ...spot });
  }
  return { placed, rows: Math.max(1, rowEnds.length), hidden };
}

function spotOf(mark: Mark, scale: (seconds: number) => number, width: number): Spot | null {
  const start = scale(mark.from);
  const end = scale(mark.to);
  if (end < 0 || start > width) return null;
  if (mark.shape === 'chip') return chipSpot(mark.label, start, width);

  const x = Math.max(start, -2);
  const shape = mark.shape === 'point' ? POINT : Math.max(Math.min(end, width + 2) - x, MIN_BAR);
  const within = { x, width: shape, left: x, right: x + shape };
  if (shape >= widthOf(mark.label) + 2 * PADDING) {
    return mark.shape === 'lead'
      ? { ...within, label: mark.label, labelX: x + shape / 2, anchor: 'middle' }
      : { ...within, label: mark.label, labelX: Math.max(x, 0) + PADDING, anchor: 'start' };
  }
  // Neighbours that follow each other share a row, however thin one of them is drawn.
  if (mark.labelInside) return { ...within, label: '', labelX: x, anchor: 'start', right: Math.max(end, x) };

  const after = x + shape + PADDING;
  const before = x - PADDING;
  const label = [mark.label, mark.short].find((text) => text && widthOf(text) <= Math.max(width - after, before)) ?? mark.label;
  if (after + widthOf(label) <= width || widthOf(label) > before) {
    return { ...within, label, labelX: after, anchor: 'start', right: after + widthOf(label) + GAP };
  }
  return { ...within, label, labelX: before, anchor: 'end', left: before - widthOf(label) };
}

/** A chip is as wide as its word, and slides left where it would leave the screen. */
function chipSpot(label: string, start: number, width: number): Spot {
  const box = widthOf(label) + 2 * PADDING;
  const x = Math.max(0, Math.min(start, width - box));
  return { x, width: box, label, labelX: x + PADDING, anchor: 'start', left: x, right: x + box + GAP };
}

/** Near enough in every sans-serif font: measuring each label would cost a layout a frame. */
function widthOf(text: string): number {
  return text.length * CHARACTER;
}
