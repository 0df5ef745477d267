/** Which mark an arrow key leads to: left and right in time, up and down between lanes. */
import { LANES } from './lanes';
import type { Mark } from './marks';

export function neighbour(key: string, marks: Mark[], current: Mark): Mark | null {
  const inTime = marks.toSorted((one, other) => one.from - other.from || one.to - other.to);
  const index = inTime.findIndex((mark) => mark.id === current.id);
  if (key === 'ArrowRight') return inTime[index + 1] ?? null;
  if (key === 'ArrowLeft') return inTime[index - 1] ?? null;
  if (key === 'Home') return inTime[0] ?? null;
  if (key === 'End') return inTime.at(-1) ?? null;
  if (key === 'ArrowDown' || key === 'ArrowUp') return inNextLane(inTime, current, key === 'ArrowDown' ? 1 : -1);
  return null;
}

function inNextLane(marks: Mark[], current: Mark, step: 1 | -1): Mark | null {
  let lane = LANES.findIndex(({ name }) => name === current.lane) + step;
  for (; LANES[lane] !== undefined; lane += step) {
    const there = marks.filter((mark) => mark.lane === LANES[lane]?.name);
    const nearest = there.toSorted((one, other) => Math.abs(one.from - current.from) - Math.abs(other.from - current.from))[0];
    if (nearest) return nearest;
  }
  return null;
}
