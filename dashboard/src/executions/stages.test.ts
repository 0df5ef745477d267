import { expect, it } from 'vitest';

import { NO_STAGES } from '../testing/samples';
import { stagesOf } from './stages';

it('lists what took time, in order, and names what no stage accounts for', () => {
  expect(stagesOf({ ...NO_STAGES, import_ms: 5, queue_ms: 1 }, 8)).toEqual([
    { name: 'queue', from: 0, ms: 1 },
    { name: 'import', from: 1, ms: 5 },
    { name: 'other', from: 6, ms: 2 },
  ]);
});

it('calls rounding rounding', () => {
  expect(stagesOf({ ...NO_STAGES, thaw_ms: 1 }, 1.02)).toHaveLength(1);
});
