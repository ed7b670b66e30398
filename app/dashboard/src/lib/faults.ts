// A fault in words.
import { bits, duration } from './format';

interface Given {
  [key: string]: unknown;
}

export function faultWords(fault: unknown): string {
  const spec = fault as Given;
  const words: string[] = [];
  const n = (key: string) => Number(spec[key] ?? 0);
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
