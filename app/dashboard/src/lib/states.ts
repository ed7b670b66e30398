// What a state means at a glance.
import type { State } from '../api/client';

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

const KINDS: [string, string][] = [
  ['network', 'network'],
  ['filesystem', 'filesystem'],
  ['clock', 'clock'],
  ['name', 'name-service'],
];

/** The kind of an element, by its name where the catalogue is not at hand. */
export const kindOf = (element: string): string =>
  KINDS.find(([start]) => element.startsWith(start))?.[1] ?? 'other';
