// Quantities as people read them.
const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
const DECIMAL = ['', 'k', 'M', 'G', 'T'];

function scaled(value: number, base: number, units: string[]): [string, string] {
  let unit = 0;
  while (Math.abs(value) >= base && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  const text = value
    .toFixed(digits)
    .replace(/\.?0+$/, (zeros) => (zeros.includes('.') ? '' : zeros));
  return [text, units[unit]!];
}

export const bytes = (value: number) => scaled(value, 1024, BYTES).join(' ');
export const bits = (perSecond: number) => {
  const [text, unit] = scaled(perSecond, 1000, DECIMAL);
  return `${text} ${unit}bit/s`;
};
export const count = (value: number) => scaled(value, 1000, DECIMAL).join('');
export const rate = (perSecond: number) =>
  `${perSecond < 10 ? perSecond.toFixed(1) : count(perSecond)}/s`;

export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400)
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** Its largest unit alone. */
export function age(seconds: number): string {
  return duration(Math.max(1, seconds)).replace(/^(\d+ \S+) .*/, '$1');
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
});
const day = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });

export const clockTime = (iso: string) => clock.format(new Date(iso));
export const dayOf = (iso: string) => day.format(new Date(iso));
export const fullTime = (iso: string) => `${dayOf(iso)} ${clockTime(iso)}`;

export const plural = (n: number, one: string, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** A value of a setting in one line. */
export function shown(value: unknown): string {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'object') return JSON.stringify(value);
  return String(value);
}
