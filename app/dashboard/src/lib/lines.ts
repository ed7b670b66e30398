// Reads a stream of JSON lines, whole lines at a time.
import { stream } from '../api/client';

export async function readLines<T>(
  path: string,
  signal: AbortSignal,
  take: (items: T[]) => void,
): Promise<void> {
  const reader = await stream(path, signal, 'application/x-ndjson');
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split('\n');
    rest = parts.pop() ?? '';
    const items = parts.filter((part) => part.trim()).map((part) => JSON.parse(part) as T);
    if (items.length) take(items);
  }
}
