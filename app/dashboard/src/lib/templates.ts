// What to begin from: the example stacks of the project, and their applications one by one.
import { parse, type Data } from './stacks';

const FILES = import.meta.glob('../../../../examples/*.yaml', {
  query: '?raw',
  import: 'default',
  eager: true,
}) as Record<string, string>;

export interface Template {
  title: string;
  about: string;
  data: Data;
}

const BLANK: Template = {
  title: 'Empty',
  about: 'A name and a command',
  data: { name: '', command: [], elements: { 'network-lwip': {} } },
};
const WEB: Template = {
  title: 'Web server',
  about: 'Python’s, on port 80 of its own stack',
  data: {
    name: 'web',
    command: ['python3', '-m', 'http.server', '80'],
    elements: { 'network-lwip': {} },
    ports: ['8080:80'],
  },
};
const CLOCK: Template = {
  title: 'Other date',
  about: 'A program thirty days in the past',
  data: {
    name: 'past',
    command: ['sh', '-c', 'while :; do date; sleep 1; done'],
    elements: { 'clock-faketime': { settings: { offset: '-30d' } } },
  },
};

/** Paths beside the file mean nothing here: the page does not know where the server has it. */
function hasRelativePath(node: unknown): boolean {
  if (typeof node !== 'object' || node === null) return false;
  return Object.entries(node).some(([key, value]) =>
    key === 'from' && typeof value === 'string' ? !value.startsWith('/') : hasRelativePath(value),
  );
}

export function templates(): Template[] {
  const stacks = Object.entries(FILES).flatMap(([path, text]) => {
    const { data } = parse(text);
    if (!data) return [];
    const file = path.split('/').pop()!.replace('.yaml', '');
    const every = Object.entries((data.applications ?? {}) as Data);
    const applications = Object.fromEntries(every.filter(([, app]) => !hasRelativePath(app)));
    const names = Object.keys(applications);
    if (!names.length) return [];
    return [{ title: file, about: `Stack: ${names.join(', ')}`, data: { ...data, applications } }];
  });
  return [BLANK, WEB, CLOCK, ...stacks];
}
