// What differs between two sets of settings, and whether it can change while a program runs.
import { resolve, type Schema } from './schema';

type Settings = Record<string, unknown>;
const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);

export function changedKeys(before: Settings, after: Settings): string[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].filter((key) => !same(before[key], after[key]));
}

/** As the server decides it: every changed leaf must be declared `apply: live`. */
export function isLive(root: Schema, key: string, before: Settings, after: Settings): boolean {
  const leaf = (schema: Schema | undefined, was: unknown, is: unknown): boolean => {
    if (same(was, is)) return true;
    if (!schema) return false;
    const found = resolve(schema, root);
    if (found.apply) return found.apply === 'live';
    if (!found.properties) return false;
    const one = (was ?? {}) as Settings;
    const other = (is ?? {}) as Settings;
    return changedKeys(one, other).every((name) =>
      leaf(found.properties?.[name], one[name], other[name]),
    );
  };
  return leaf(root.properties?.[key], before[key], after[key]);
}
