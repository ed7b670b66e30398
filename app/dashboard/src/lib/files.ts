// Files of an application: what a path in a URL is made of, and words for what the server says.
import type { Change, FileEntry } from '../api/client';

/** Of a name that is no text the server gives the bytes, percent-encoded. */
export const encodedName = (entry: { name: string; encoded?: string | null }) =>
  entry.encoded ?? encodeURIComponent(entry.name);

/** `path` is percent-encoded already, except for its slashes. */
export const below = (path: string, name: string) =>
  path === '/' ? `/${name}` : `${path}/${name}`;

export const shownPath = (path: string) => {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
};

/** A link that the browser follows by itself: contents may be larger than a page's memory. */
export const contentUrl = (app: string, path: string) =>
  `/v1/applications/${encodeURIComponent(app)}/files/content?path=${path}`;
export const archiveUrl = (app: string, path: string, changes: boolean) =>
  `/v1/applications/${encodeURIComponent(app)}/files/archive?path=${path}${changes ? '&changes=true' : ''}`;

export const TONES: Record<Change, string> = { added: 'ok', changed: 'warn', removed: 'bad' };

export const KINDS: Record<string, string> = {
  directory: 'd',
  link: 'l',
  fifo: 'p',
  socket: 's',
  'character-device': 'c',
  'block-device': 'b',
};

export function permissions(entry: FileEntry): string {
  const mode = parseInt(entry.mode, 8);
  const letters = [...'rwxrwxrwx'].map((letter, i) => (mode & (1 << (8 - i)) ? letter : '-'));
  const special = [
    [0o4000, 2, 's'],
    [0o2000, 5, 's'],
    [0o1000, 8, 't'],
  ] as const;
  for (const [bit, at, letter] of special)
    if (mode & bit) letters[at] = letters[at] === 'x' ? letter : letter.toUpperCase();
  return (KINDS[entry.kind] ?? '-') + letters.join('');
}
