import { describe, expect, it } from 'vitest';

import { type Mark, mark } from './marks';
import { placeLane } from './place';

const scale = (seconds: number) => seconds * 100;

function bar(id: string, from: number, to: number, label = id, some: Partial<Mark> = {}): Mark {
  return { ...mark('prepare', { id, lane: 'prepare', shape: 'bar', from, to, label, title: id, facts: [] }), ...some };
}

function rows(...marks: Mark[]) {
  return Object.fromEntries(placeLane(marks, scale, 1_000).placed.map((spot) => [spot.mark.id, spot.row]));
}

describe('rows', () => {
  it('are shared by what does not overlap', () => {
    expect(rows(bar('a', 0, 1), bar('b', 2, 3))).toEqual({ a: 0, b: 0 });
  });

  it('are added for what does, labels included', () => {
    expect(rows(bar('a', 0, 0.1, 'a label of some length'), bar('b', 1, 2))).toEqual({ a: 0, b: 1 });
  });

  it('end somewhere: the rest is counted', () => {
    const crowd = Array.from({ length: 14 }, (_, index) => bar(String(index), 0, 9));
    expect(placeLane(crowd, scale, 1_000)).toMatchObject({ rows: 10, hidden: 4 });
  });

  it('are never taken by what is out of sight', () => {
    expect(placeLane([bar('past', -5, -1), bar('future', 11, 12)], scale, 1_000)).toMatchObject({ placed: [], hidden: 0 });
  });
});

describe('labels', () => {
  const place = (one: Mark) => placeLane([one], scale, 1_000).placed[0];

  it('stand inside where they fit', () => {
    expect(place(bar('a', 1, 3))).toMatchObject({ anchor: 'start', labelX: 106 });
  });

  it('stand before the bar where the screen ends after it', () => {
    const spot = place(bar('a', 9.8, 9.9, 'waited 2.1 ms'));
    expect(spot?.anchor).toBe('end');
    expect(spot?.labelX).toBeCloseTo(974);
  });

  it('are shortened where neither side has room', () => {
    const some = { short: 'short' };
    expect(place(bar('a', 4, 5, 'x'.repeat(60), some))?.label).toBe('x'.repeat(60));
    expect(place(bar('a', 4, 5, 'x'.repeat(80), some))?.label).toBe('short');
  });

  it('of chips stay on the screen', () => {
    const chip = place(bar('pandas 95 %', 9.9, 9.9, 'pandas 95 %', { shape: 'chip' }));
    expect((chip?.x ?? 0) + (chip?.width ?? 0)).toBeCloseTo(1_000);
  });
});
