// What the page knows of the server: all applications and faults, kept true by its stream of
// events. The connection comes back by itself, and everything is read again when it does.
import { SvelteMap } from 'svelte/reactivity';
import {
  api,
  failureOf,
  must,
  type Application,
  type Event,
  type Failure,
  type Fault,
} from '../api/client';
import { session } from './session.svelte';

const QUIET_MS = 60;
/** Events of so many milliseconds are answered by one round of reading. */
const MANY = 25;
/** More changed applications than this are read as one list. */
const CALM_MS = 1000;
/** Between two readings of the whole list, however much happens. */
const RECENT = 500;

type Connection = 'connecting' | 'live' | 'lost';

export const applications = new SvelteMap<string, Application>();
let list = $state.raw<Application[]>([]);
let faults = $state.raw<Fault[]>([]);
let recent = $state.raw<Event[]>([]);
let connection = $state<Connection>('connecting');
let loaded = $state(false);
let failure = $state<Failure | null>(null);
let lostAt = $state(0);

export const live = {
  /** By name. */
  get list() {
    return list;
  },
  get faults() {
    return faults;
  },
  /** Events since the page was opened, oldest first. */
  get recent() {
    return recent;
  },
  get connection() {
    return connection;
  },
  get loaded() {
    return loaded;
  },
  get failure() {
    return failure;
  },
  get lostAt() {
    return lostAt;
  },
  /** After an act of our own: what is answered need not wait for its event. */
  put(application: Application) {
    applications.set(application.name, application);
    resort();
  },
  refresh,
  refreshFaults,
  connect,
};

const listeners = new Set<(event: Event) => void>();
/** Be told of each event as it comes; returns how to end it. */
export function onEvent(listener: (event: Event) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const reloaders = new Set<() => void>();
/** Be told when the connection has come back. */
export function onReturn(listener: () => void): () => void {
  reloaders.add(listener);
  return () => reloaders.delete(listener);
}

let retryMs = 500;
let retry: ReturnType<typeof setTimeout> | undefined;
let source: EventSource | undefined;

function connect() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource('/v1/events');
  source.onopen = () => {
    retryMs = 500;
    void refresh().then(() => {
      const returned = connection === 'lost';
      connection = 'live';
      if (returned) for (const reload of reloaders) reload();
    }, lose);
  };
  source.addEventListener('resync', () => void refresh().catch(lose));
  source.onmessage = (message) => hear(JSON.parse(message.data) as Event);
  source.onerror = lose;
}

/** Not left to EventSource: it gives up where a proxy answers for a server that is away. */
function lose() {
  source?.close();
  if (connection !== 'lost') lostAt = Date.now();
  connection = 'lost';
  clearTimeout(retry);
  retry = setTimeout(async () => {
    // For want of a token, rather than of a server? Then Login connects again.
    if (await session.ask()) connect();
  }, retryMs);
  retryMs = Math.min(retryMs * 1.6, 5000);
}

const changed = new Set<string>();
let faultsChanged = false;
let listedAt = 0;
let pending: ReturnType<typeof setTimeout> | undefined;

function hear(event: Event) {
  recent = [...recent.slice(-RECENT + 1), event];
  for (const listener of listeners) listener(event);
  if (event.kind.startsWith('fault')) faultsChanged = true;
  else if (event.application && event.kind !== 'reported') changed.add(event.application);
  // While the list was just read whole, wait: a thousand starts are a few readings, not hundreds.
  pending ??= setTimeout(follow, Math.max(QUIET_MS, listedAt + CALM_MS - Date.now()));
}

async function follow() {
  pending = undefined;
  const names = [...changed];
  const alsoFaults = faultsChanged;
  changed.clear();
  faultsChanged = false;
  try {
    if (alsoFaults) await refreshFaults();
    if (names.length > MANY) {
      await refresh();
      listedAt = Date.now();
    } else await Promise.all(names.map(refreshOne));
  } catch {
    lose();
  }
}

async function refreshOne(name: string) {
  try {
    const found = await must(api.GET('/v1/applications/{name}', { params: { path: { name } } }));
    applications.set(name, found);
  } catch (error) {
    if (failureOf(error).status !== 404) throw error;
    applications.delete(name);
  }
  resort();
}

// Not every state that passes by ends with an event (after a restart of the server, say): what is
// on its way is looked at again until it has arrived.
const PASSING = new Set(['starting', 'restarting', 'waiting', 'removing']);
let looking: ReturnType<typeof setTimeout> | undefined;
let lookMs = 1000;
function lookAgain() {
  if (looking) return;
  const passing = [...applications.values()].filter((one) => PASSING.has(one.status.state));
  if (!passing.length) {
    lookMs = 1000;
    return;
  }
  looking = setTimeout(() => {
    looking = undefined;
    for (const one of passing) changed.add(one.name);
    pending ??= setTimeout(follow, 0);
  }, lookMs);
  lookMs = Math.min(lookMs * 1.5, 15_000);
}

let sorting = false;
function resort() {
  if (sorting) return;
  sorting = true;
  queueMicrotask(() => {
    sorting = false;
    list = [...applications.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    lookAgain();
  });
}

async function refreshFaults() {
  faults = (await must(api.GET('/v1/faults'))).items;
}

/** Everything anew. */
async function refresh() {
  try {
    const found: Application[] = [];
    let after: string | undefined;
    do {
      const query = { limit: 1000, ...(after ? { after } : {}) };
      const page = await must(api.GET('/v1/applications', { params: { query } }));
      found.push(...page.items);
      after = page.next ?? undefined;
    } while (after);
    await refreshFaults();
    const names = new Set(found.map((one) => one.name));
    for (const name of applications.keys()) if (!names.has(name)) applications.delete(name);
    for (const one of found) applications.set(one.name, one);
    list = found;
    lookAgain();
    loaded = true;
    failure = null;
  } catch (error) {
    failure = failureOf(error);
    throw error;
  }
}

void session.ask().then((known) => known && connect());
// A laptop that wakes, a tab that returns: at once rather than at the next try.
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && connection === 'lost' && !session.wanted) connect();
});
addEventListener('online', () => !session.wanted && connect());
