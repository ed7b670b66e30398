// The colour of an event's kind.
import type { Tone } from './states';

export function eventTone(kind: string): Tone {
  if (/fail|refused|gave-up|lost/.test(kind)) return 'bad';
  if (/fault-started|restart|waiting|stop|exited|removed/.test(kind)) return 'warn';
  if (/started|created|applied|ready|-ended/.test(kind)) return 'ok';
  return 'idle';
}
