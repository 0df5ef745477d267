/** The lanes one below the other. */
import { LANES, type LaneTitle } from './lanes';
import type { Mark } from './marks';
import { type PlacedLane, placeLane, ROW_HEIGHT } from './place';

const AXIS_HEIGHT = 26;
const PADDING = 8;
/** Room for a title of two lines beside the rows, or of one above them. */
const LOWEST = 46;
const TITLE_ROW = 20;

export interface StackedLane extends PlacedLane {
  title: LaneTitle;
  top: number;
  /** From the lane's top to its first row. */
  offset: number;
}

/** `titlesAbove` on narrow screens. What is new to this page has a lane only when there is some of it. */
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
    if (own.length === 0 && title.name === 'other') continue;
    const lane = placeLane(own, scale, width);
    lanes.push({ ...lane, title, top: height, offset });
    height += Math.max(LOWEST, offset + lane.rows * ROW_HEIGHT + PADDING);
  }
  return { lanes, height };
}
