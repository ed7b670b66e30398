// What the create page edits: one application, or a whole stack, as data and as YAML.
import { parseDocument, stringify } from 'yaml';

export type Data = Record<string, unknown>;

export interface Parsed {
  data?: Data;
  error?: string;
}

export function parse(text: string): Parsed {
  const document = parseDocument(text);
  const [first] = document.errors;
  if (first) return { error: first.message.split('\n')[0] };
  const data: unknown = document.toJS();
  if (data === null || typeof data !== 'object' || Array.isArray(data))
    return { error: 'write KEY: VALUE lines' };
  return { data: data as Data };
}

export const toYaml = (data: Data) => stringify(data, { lineWidth: 100, nullStr: '' });

export const isStack = (data: Data) => 'applications' in data;

/** Of a stack, by name. */
export const applicationsOf = (data: Data) => (data.applications ?? {}) as Record<string, Data>;

/** An application as the first of a stack, with room for others. */
export function asStack({ name, ...rest }: Data): Data {
  return { name: name || 'stack', applications: { [String(name || 'first')]: rest } };
}

/** A stack as it was declared, as far as its applications tell: each has its name as a label. */
export function gathered(name: string, specs: Data[]): Data {
  const applications = specs.map((spec) => {
    const { name: own, labels, ...rest } = brief(spec);
    const { [STACK_LABEL]: _, ...others } = (labels ?? {}) as Data;
    return [own, Object.keys(others).length ? { ...rest, labels: others } : rest];
  });
  return { name, applications: Object.fromEntries(applications) };
}

export const STACK_LABEL = 'cse.stack';
/** The search that shows a stack's applications. */
export const ofStack = (name: string) => `${STACK_LABEL}=${name}`;

/** With another name for one key, in its place. */
export const renamed = <T>(entries: Record<string, T>, from: string, to: string) =>
  Object.fromEntries(Object.entries(entries).map(([key, one]) => [key === from ? to : key, one]));

/** NAME-2, NAME-3, … whichever is free. */
export function free(name: string, taken: object): string {
  let found = name;
  for (let i = 2; found in taken; i++) found = `${name}-${i}`;
  return found;
}

/** Without what is as it would be anyway: what a person would have written. */
export function brief(spec: Data): Data {
  const made = pruned(spec, DEFAULTS) as Data;
  if (Array.isArray(made.ports)) made.ports = (spec.ports as unknown[]).map(shortPort);
  return made;
}

/** Defaults by place; `*` stands for every key and every member. */
const DEFAULTS: Data = {
  runtime: 'namespace',
  fallback: 'refuse',
  network: { name: 'default' },
  restart: { policy: 'no', delay: 0.1 },
  stop: { signal: 'SIGTERM', grace: 10 },
  mounts: { '*': { read_only: true } },
  elements: { '*': { variant: 'release', link: 'preload' } },
};

/** `undefined` where nothing is left that is not so by default. */
function pruned(value: unknown, usual: unknown): unknown {
  const known = (usual ?? {}) as Data;
  if (Array.isArray(value))
    return value.length ? value.map((one) => pruned(one, known['*']) ?? one) : undefined;
  if (value === null || typeof value !== 'object') return value === usual ? undefined : value;
  const made: Data = {};
  for (const [key, one] of Object.entries(value)) {
    if (one === null || one === undefined) continue;
    const left = pruned(one, known[key] ?? known['*']);
    if (left !== undefined) made[key] = left;
    else if (known['*'] && typeof one === 'object') made[key] = {}; // an element with all defaults
  }
  return Object.keys(made).length ? made : undefined;
}

/** `8081:80`, as people write it. */
export function shortPort(port: unknown): unknown {
  if (typeof port !== 'object' || port === null) return port;
  const { host_address, host_port, container_port, protocol } = port as Data;
  const address = host_address && host_address !== '0.0.0.0' ? `${host_address}:` : '';
  return `${address}${host_port}:${container_port}${protocol === 'udp' ? '/udp' : ''}`;
}

/** A command line as a shell would split it: quotes and backslashes, nothing more. */
export function words(line: string): string[] {
  const found: string[] = [];
  for (const match of line.matchAll(/(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+/gs))
    found.push(
      match[0].replace(/\\(.)|"((?:[^"\\]|\\.)*)"|'([^']*)'/gs, (_, one, double, single) =>
        one !== undefined
          ? one
          : double !== undefined
            ? double.replace(/\\(["\\$`])/g, '$1')
            : single,
      ),
    );
  return found;
}

export const line = (command: unknown): string =>
  Array.isArray(command)
    ? command
        .map(String)
        .map((word) =>
          /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`,
        )
        .join(' ')
    : '';
