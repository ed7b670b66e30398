// What identifies something in an observation: inodes, namespaces, processes, addresses of mappings.
const MARK = /\[\d{6,}\]|\binode \d+|\/proc\/(?:\d+|\{[\d,]+\})|\b[0-9a-f]{12,}…?/g;

export const marks = (text: string): Set<string> => new Set(text.match(MARK) ?? []);

export function pieces(text: string): { text: string; mark: boolean }[] {
  const found: { text: string; mark: boolean }[] = [];
  let at = 0;
  for (const match of text.matchAll(MARK)) {
    if (match.index > at) found.push({ text: text.slice(at, match.index), mark: false });
    found.push({ text: match[0], mark: true });
    at = match.index + match[0].length;
  }
  if (at < text.length) found.push({ text: text.slice(at), mark: false });
  return found;
}
