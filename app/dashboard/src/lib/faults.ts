// A fault in words, and what a fault of files can be about.
import type { FileOperation } from '../api/client';
import { bits, bytes, duration } from './format';

// Each operation of the API's description once: the compiler says when one is missing.
const EACH: Record<FileOperation, true> = {
  open: true,
  read: true,
  write: true,
  fsync: true,
  close: true,
  stat: true,
  readdir: true,
  mkdir: true,
  rename: true,
  link: true,
  unlink: true,
  truncate: true,
  attributes: true,
};
export const OPERATIONS = Object.keys(EACH) as FileOperation[];
/** The usual ones of disks; the API takes any. */
export const ERRORS = ['EIO', 'ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'ENOENT', 'EMFILE', 'EINTR'];

interface Given {
  [key: string]: unknown;
}

function fileWords(file: Given): string[] {
  const words: string[] = [];
  const op = (file.op as string[] | undefined) ?? [];
  const share = Number(file.rate ?? 100);
  if (file.errno) words.push(`${file.errno}`);
  if (file.short) words.push('short');
  if (file.full_after !== null && file.full_after !== undefined)
    words.push(
      typeof file.full_after === 'number'
        ? `full after ${bytes(file.full_after)}`
        : `full after ${file.full_after}`,
    );
  words.push(`${op.length ? op.join(', ') : 'operations'} on ${file.path}`);
  if (share !== 100) words.push(`${share} % of them`);
  return words;
}

export function faultWords(fault: unknown): string {
  const spec = fault as Given;
  const words: string[] = [];
  const n = (key: string) => Number(spec[key] ?? 0);
  if (spec.file) words.push(...fileWords(spec.file as Given));
  if (n('loss')) words.push(`${n('loss')} % lost`);
  if (n('delay'))
    words.push(
      `${duration(n('delay'))} later` + (n('jitter') ? ` ± ${duration(n('jitter'))}` : ''),
    );
  if (n('reorder')) words.push(`${n('reorder')} % reordered`);
  if (n('duplicate')) words.push(`${n('duplicate')} % twice`);
  if (n('corrupt')) words.push(`${n('corrupt')} % corrupted`);
  if (n('rate')) words.push(`at most ${bits(n('rate'))}`);
  if (spec.cut) words.push(`cut from ${spec.cut}`);
  if (spec.refuse) words.push(`port ${spec.refuse} refused`);
  if (spec.reset) words.push(`port ${spec.reset} reset`);
  if (spec.direction && spec.direction !== 'both') words.push(`only ${spec.direction}`);
  if (spec.to) words.push(`only with ${spec.to}`);
  return words.join(', ');
}
