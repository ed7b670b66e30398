// A directory as `find` lists it within an application, and who serves a path there.
export interface Entry {
  kind: string;
  name: string;
  size: number;
  mode: string;
  owner: string;
  changed: string;
  link: string;
}

export interface Mount {
  path: string;
  source: string;
  from?: string;
}

export const LIST = (path: string) => [
  ...['find', path, '-mindepth', '1', '-maxdepth', '1'],
  ...['-printf', '%y\\t%s\\t%m\\t%u\\t%T@\\t%l\\t%f\\n'],
];

export function parseList(text: string): Entry[] {
  const found = text
    .split('\n')
    .filter(Boolean)
    .map((line): Entry => {
      const [kind, size, mode, owner, changed, link, ...name] = line.split('\t');
      return {
        kind: kind!,
        size: Number(size),
        mode: mode!,
        owner: owner!,
        changed: new Date(Number(changed) * 1000).toISOString(),
        link: link!,
        name: name.join('\t'),
      };
    });
  const rank = (entry: Entry) => (entry.kind === 'd' ? 0 : 1);
  return found.sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
}

const within = (path: string, place: string) =>
  path === place || path.startsWith(place.endsWith('/') ? place : `${place}/`);

/** The private tree's source, a mount of the application, or the surroundings of its runtime. */
export function sourceOf(
  path: string,
  mounts: Mount[],
  binds: { path: string; from?: string | null; volume?: string | null }[],
): { text: string; own: boolean } {
  const longest = <T extends { path: string }>(all: T[]) =>
    all.filter((one) => within(path, one.path)).sort((a, b) => b.path.length - a.path.length)[0];
  const mount = longest(mounts);
  const bind = longest(binds);
  if (mount && (!bind || mount.path.length >= bind.path.length))
    return {
      text: `${mount.source}${mount.from ? ` ${mount.from.split('/').pop()}` : ''}`,
      own: true,
    };
  if (bind) return { text: bind.volume ? `volume ${bind.volume}` : 'mount', own: false };
  return { text: 'surroundings', own: false };
}
