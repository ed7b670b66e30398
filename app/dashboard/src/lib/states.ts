// What a state means at a glance.
import type { Application, State } from '../api/client';
import { catalogue } from '../state/catalogue.svelte';

export type Tone = 'ok' | 'warn' | 'bad' | 'idle';

const TONES: Record<State, Tone> = {
  running: 'ok',
  starting: 'warn',
  waiting: 'warn',
  restarting: 'warn',
  removing: 'warn',
  failed: 'bad',
  exited: 'idle',
  stopped: 'idle',
};

export const toneOf = (state: State): Tone => TONES[state] ?? 'idle';

/** Worst first. */
export const STATES: State[] = [
  'failed',
  'restarting',
  'waiting',
  'starting',
  'removing',
  'running',
  'exited',
  'stopped',
];

/** Of preflight. */
export const VERDICTS = {
  private: 'linked with its own services',
  kernel: 'on the kernel’s own stack, in a private namespace',
  refused: 'refused',
};

const KINDS: [string, string][] = [
  ['network', 'network'],
  ['filesystem', 'filesystem'],
  ['clock', 'clock'],
  ['name', 'name-service'],
];

/** The kind of an element; by its name until the catalogue is there. */
export const kindOf = (element: string): string =>
  catalogue.find(element)?.kind ??
  KINDS.find(([start]) => element.startsWith(start))?.[1] ??
  'other';

/** Whether its files could meet a fault. */
export const hasFiles = (app: Application): boolean =>
  Object.keys(app.spec.elements ?? {}).some((element) => kindOf(element) === 'filesystem');

/** Whether it is on its network at all. */
export const isNetworked = (app: Application): boolean =>
  Object.keys(app.spec.elements ?? {}).some((element) => kindOf(element) === 'network');
