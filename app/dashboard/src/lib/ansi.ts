// Text with SGR escape sequences (ECMA-48) as spans; other control sequences are left out.
export interface Span {
  text: string;
  /** Classes of Logs.svelte: `c1`…`c15`, `bold`, `dim`, `italic`, `under`. */
  classes: string;
  colour?: string;
}

// eslint-disable-next-line no-control-regex
const SEQUENCE =
  /\x1b\[([0-9;]*)m|\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f]/g;

interface Style {
  colour?: string;
  named?: number;
  flags: Set<string>;
}

export function spans(text: string): Span[] {
  if (!/[\x00-\x08\x0b-\x1f]/.test(text)) return [{ text, classes: '' }];
  const found: Span[] = [];
  const style: Style = { flags: new Set() };
  let at = 0;
  const push = (to: number) => {
    if (to === at) return;
    const classes = [...style.flags, ...(style.named === undefined ? [] : [`c${style.named}`])];
    found.push({ text: text.slice(at, to), classes: classes.join(' '), colour: style.colour });
  };
  for (const match of text.matchAll(SEQUENCE)) {
    push(match.index);
    at = match.index + match[0].length;
    if (match[1] !== undefined) apply(style, match[1].split(';').map(Number));
  }
  push(text.length);
  return found;
}

export const plain = (text: string) => text.replace(SEQUENCE, '');

const FLAGS: Record<number, string> = { 1: 'bold', 2: 'dim', 3: 'italic', 4: 'under' };

function apply(style: Style, codes: number[]) {
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i]!;
    if (code === 0) {
      style.flags.clear();
      style.colour = style.named = undefined;
    } else if (FLAGS[code]) style.flags.add(FLAGS[code]);
    else if (code === 22) ['bold', 'dim'].forEach((flag) => style.flags.delete(flag));
    else if (code === 23) style.flags.delete('italic');
    else if (code === 24) style.flags.delete('under');
    else if (code === 39) style.colour = style.named = undefined;
    else if (code >= 30 && code <= 37) [style.named, style.colour] = [code - 30, undefined];
    else if (code >= 90 && code <= 97) [style.named, style.colour] = [code - 82, undefined];
    else if (code === 38 && codes[i + 1] === 2) {
      style.colour = `rgb(${codes.slice(i + 2, i + 5).join(' ')})`;
      i += 4;
    } else if (code === 38 && codes[i + 1] === 5) {
      palette(style, codes[i + 2] ?? 0);
      i += 2;
    } else if (code === 48) i += codes[i + 1] === 2 ? 4 : 2;
  }
}

/** One of the 256 colours. */
function palette(style: Style, n: number) {
  if (n < 16) {
    [style.named, style.colour] = [n, undefined];
  } else if (n < 232) {
    const level = (x: number) => (x ? 55 + x * 40 : 0);
    const rest = n - 16;
    style.colour = `rgb(${level(Math.floor(rest / 36))} ${level(Math.floor(rest / 6) % 6)} ${level(rest % 6)})`;
  } else {
    const grey = 8 + (n - 232) * 10;
    style.colour = `rgb(${grey} ${grey} ${grey})`;
  }
}
