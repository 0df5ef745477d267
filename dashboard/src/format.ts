/** Numbers as people read them. `null` and `undefined` become a dash: not measured is not zero. */

type Measured = number | null | undefined;

const NOT_MEASURED = '–';
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

/** Milliseconds: `0.42 ms`, `8.1 ms`, `340 ms`, `5.3 s`, `2 min 5 s`. */
export function duration(ms: Measured): string {
  if (ms == null) return NOT_MEASURED;
  if (ms < 0) return `−${duration(-ms)}`;
  if (ms === 0) return '0 ms';
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 99.95) return `${trim(ms.toFixed(1))} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59_950) return `${trim((ms / 1_000).toFixed(1))} s`;
  const seconds = Math.round(ms / 1_000);
  const rest = seconds % 60;
  return rest === 0 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 60)} min ${rest} s`;
}

/** Bytes in binary units: `512 B`, `74 MiB`, `1.9 GiB`. */
export function bytes(count: Measured): string {
  if (count == null) return NOT_MEASURED;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit >= 3 ? trim(value.toFixed(1)) : value.toFixed(0)} ${units[unit] ?? ''}`;
}

export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** Unix seconds as the local time of day. */
export function timeOfDay(at: number): string {
  return clock.format(new Date(at * 1_000));
}

export function dateAndTime(at: number): string {
  return date.format(new Date(at * 1_000));
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

function trim(text: string): string {
  return text.replace(/\.0$/, '');
}
