import { describe, expect, it } from 'vitest';

import { bytes, duration, percent, plural } from './format';

describe('duration', () => {
  it.each([
    [null, '–'], [0, '0 ms'], [0.42, '0.42 ms'], [2.1, '2.1 ms'], [8, '8 ms'], [138.4, '138 ms'], [999.6, '1 s'],
    [5_300, '5.3 s'], [59_960, '1 min'], [125_000, '2 min 5 s'], [-5_300, '−5.3 s'],
  ])('%s is read as %s', (ms, text) => {
    expect(duration(ms)).toBe(text);
  });
});

describe('bytes', () => {
  it.each([
    [undefined, '–'], [0, '0 B'], [512, '512 B'], [143 << 20, '143 MiB'], [1000 * 2 ** 20, '1 GiB'], [1.9 * 2 ** 30, '1.9 GiB'],
  ])('%s is read as %s', (count, text) => {
    expect(bytes(count)).toBe(text);
  });
});

it('shares are whole percents', () => {
  expect(percent(0.814)).toBe('81 %');
});

it('one is not many', () => {
  expect([plural(1, 'build'), plural(0, 'build')]).toEqual(['1 build', '0 builds']);
});
