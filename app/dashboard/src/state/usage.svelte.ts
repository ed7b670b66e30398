// Rates from the instances' totals, read while somebody looks. Slower where an answer takes long.
import { SvelteMap } from 'svelte/reactivity';
import { api, must, type Usage } from '../api/client';

const EVERY_MS = 2000;
const KEPT = 150;
/** Samples of each application: five minutes. */

export interface Sample {
  at: number;
  /** Bits per second, by wires and tap together. */
  rx: number;
  tx: number;
  /** Of these, by wires. */
  wires: number;
  packets: number;
  retransmits: number;
  connections: number;
  /** Operations in mounts per second, and bytes brought to where the program reads them. */
  opens: number;
  looks: number;
  changes: number;
  filled: number;
  copied: number;
  memory: number;
  /** Share of one processor. */
  cpu: number;
}

export interface Measured {
  usage: Usage;
  now: Sample | null;
  history: Sample[];
}

export const measured = new SvelteMap<string, Measured>();
let seenAt = 0;
let watchers = 0;
let timer: ReturnType<typeof setTimeout> | undefined;

/** In an `$effect`: measure while the component lives. */
export function watchUsage(): () => void {
  watchers += 1;
  if (watchers === 1) void poll();
  return () => {
    watchers -= 1;
    if (!watchers) clearTimeout(timer);
  };
}

async function poll() {
  clearTimeout(timer);
  const began = performance.now();
  if (!document.hidden) {
    try {
      take(await must(api.GET('/v1/usage')).then((page) => page.items));
    } catch {
      // The connection's own state says it; the next round tries again.
    }
  }
  const took = performance.now() - began;
  if (watchers) timer = setTimeout(poll, Math.max(EVERY_MS - took, took * 4));
}

function take(items: Usage[]) {
  const at = Date.now();
  const seconds = (at - seenAt) / 1000;
  const present = new Set(items.map((item) => item.application));
  for (const name of measured.keys()) if (!present.has(name)) measured.delete(name);
  for (const usage of items) {
    const before = measured.get(usage.application);
    const now = before && seconds < 60 ? sample(usage, before.usage, at, seconds) : null;
    const history = before?.history ?? [];
    if (now) {
      history.push(now);
      if (history.length > KEPT) history.shift();
    }
    measured.set(usage.application, { usage, now, history });
  }
  seenAt = at;
}

function sample(usage: Usage, before: Usage, at: number, seconds: number): Sample {
  const per = (key: string, factor = 1) =>
    Math.max(0, ((usage.counters?.[key] ?? 0) - (before.counters?.[key] ?? 0)) * factor) / seconds;
  const files = (key: string) =>
    Math.max(0, (usage.files?.[key] ?? 0) - (before.files?.[key] ?? 0)) / seconds;
  return {
    at,
    opens: files('opens'),
    looks: files('stats') + files('lists'),
    changes: files('changes'),
    filled: files('filled_bytes'),
    copied: files('copied_bytes'),
    rx: per('rx_bytes', 8) + per('wire_rx_bytes', 8),
    tx: per('tx_bytes', 8) + per('wire_tx_bytes', 8),
    wires: per('wire_rx_bytes', 8) + per('wire_tx_bytes', 8),
    packets:
      per('rx_packets') + per('tx_packets') + per('wire_rx_packets') + per('wire_tx_packets'),
    retransmits: per('tcp_retransmits'),
    connections: usage.counters?.established ?? 0,
    memory: usage.memory,
    cpu: Math.max(0, usage.cpu - before.cpu) / seconds,
  };
}
