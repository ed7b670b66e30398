// The part of JSON Schema (2020-12) that elements' settings and the API's own models use.
export interface Schema {
  type?: string | string[];
  title?: string;
  description?: string;
  default?: unknown;
  enum?: unknown[];
  const?: unknown;
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  patternProperties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  oneOf?: Schema[];
  anyOf?: Schema[];
  minimum?: number;
  maximum?: number;
  pattern?: string;
  format?: string;
  examples?: unknown[];
  unit?: string;
  apply?: 'live' | 'restart';
  minItems?: number;
  $ref?: string;
  $defs?: Record<string, Schema>;
}

/** What a reference means; `root` is the document that it points into. */
export function resolve(schema: Schema, root: Schema): Schema {
  let found = schema;
  for (let depth = 0; found.$ref && depth < 20; depth++) {
    let at: unknown = root;
    for (const key of found.$ref.replace(/^#\//, '').split('/'))
      at = (at as Record<string, unknown> | undefined)?.[key];
    const { $ref: _, ...beside } = found;
    found = { ...(at as Schema), ...beside };
  }
  return found;
}

export type Shape =
  'object' | 'map' | 'list' | 'choice' | 'enum' | 'number' | 'boolean' | 'string' | 'any';

/** What the form shows: no `null`, quantities as strings, and where there are a long and a short
 * form, as of lists and objects, the long one. */
export function simple(schema: Schema, root: Schema): Schema {
  const whole = resolve(schema, root);
  const options = whole.anyOf?.map((one) => simple(one, root)).filter((one) => one.type !== 'null');
  if (!options?.length) return whole;
  const { anyOf: _, ...rest } = whole;
  if (options.length === 1) return { ...options[0], ...rest };
  const long =
    options.find((one) => one.type === 'array') ??
    options.find((one) => one.type === 'object' && one.properties);
  if (long) return { ...long, ...rest };
  const scalar = options.every((one) => typeof one.type === 'string' && one.type !== 'object');
  return scalar ? { ...rest, type: 'string' } : whole;
}

/** The form that an entry of a map may have instead of a text, if any. */
export function entryObject(map: Schema, root: Schema): Schema | undefined {
  const [entry] = Object.values(map.patternProperties ?? {});
  const options = entry ? (resolve(entry, root).anyOf ?? []) : [];
  return options.map((one) => resolve(one, root)).find((one) => one.type === 'object');
}

export function shapeOf(schema: Schema): Shape {
  if (schema.oneOf) return 'choice';
  if (schema.enum) return 'enum';
  switch (schema.type) {
    case 'object':
      return schema.properties ? 'object' : 'map';
    case 'array':
      return 'list';
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
      return 'boolean';
    case 'string':
      return 'string';
    default:
      return 'any';
  }
}

/** The property by whose constant the options of a `oneOf` are told apart. */
export function discriminator(options: Schema[]): string | undefined {
  const keys = Object.keys(options[0]?.properties ?? {});
  return keys.find((key) => options.every((one) => one.properties?.[key]?.const !== undefined));
}

/** The option that fits best. */
export function optionOf(options: Schema[], value: unknown): number {
  const given = (value ?? {}) as Record<string, unknown>;
  const key = discriminator(options);
  const score = (one: Schema) => {
    if (key && one.properties?.[key]?.const !== given[key]) return -1;
    return (one.required ?? []).filter((name) => name in given).length;
  };
  const scores = options.map(score);
  return Math.max(0, scores.indexOf(Math.max(...scores)));
}

/** A value to begin with. */
export function blank(schema: Schema, root: Schema): unknown {
  const found = simple(schema, root);
  if (found.const !== undefined) return found.const;
  switch (shapeOf(found)) {
    case 'choice':
      return blank(found.oneOf![0]!, root);
    case 'object':
      return Object.fromEntries(
        (found.required ?? []).map((key) => [key, blank(found.properties![key]!, root)]),
      );
    case 'map':
      return {};
    case 'list':
      return Array.from({ length: found.minItems ?? 0 }, () => blank(found.items ?? {}, root));
    case 'enum':
      return found.default ?? found.enum![0];
    case 'number':
      return found.default ?? found.minimum ?? 0;
    case 'boolean':
      return found.default ?? false;
    default:
      return '';
  }
}
