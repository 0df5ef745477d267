/** The lanes one below the other. */
import { LANES, type LaneTitle } from './lanes';
import type { LaneName, Mark } from './marks';
import { type PlacedLane, placeLane, ROW_HEIGHT } from './place';

const AXIS_HEIGHT = 26;
const PADDING = 8;
/** Room for a title of two lines beside the rows, or of one above them. */
const LOWEST = 46;
const TITLE_ROW = 20;

/** These have a lane only when there is something in it. */
const RARE: ReadonlySet<LaneName> = new Set(['k2', 'other']);

export interface StackedLane extends PlacedLane {
  title: LaneTitle;
  top: number;
  /** From the lane's top to its first row. */
  offset: number;
}

/** `titlesAbove` on narrow screens. */
export function stackLanes(
  marks: Mark[],
  scale: (seconds: number) => number,
  width: number,
  titlesAbove: boolean,
): { lanes: StackedLane[]; height: number } {
  const lanes: StackedLane[] = [];
  const offset = PADDING + (titlesAbove ? TITLE_ROW : 0);
  let height = AXIS_HEIGHT;
  for (const title of LANES) {
    const own = marks.filter((mark) => mark.lane === title.name);
    if (own.length === 0 && RARE.has(title.name)) continue;
    const lane = placeLane(own, scale, width);
    lanes.push({ ...lane, title, top: height, offset });
    height += Math.max(LOWEST, offset + lane.rows * ROW_HEIGHT + PADDING);
  }
  return { lanes, height };
}
