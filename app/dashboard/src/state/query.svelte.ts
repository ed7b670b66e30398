// One thing read from the server for a component: loading, there, or failed; read again at will
// and when the connection has come back.
import { failureOf, type Failure } from '../api/client';
import { onReturn } from './live.svelte';

export class Query<T> {
  data = $state.raw<T | undefined>(undefined);
  failure = $state.raw<Failure | null>(null);
  loading = $state(false);
  #read: () => Promise<T>;
  #turn = 0;

  constructor(read: () => Promise<T>) {
    this.#read = read;
    $effect(() => onReturn(() => void this.reload()));
  }

  /** The data stay until the new are there; an answer overtaken by a later one is dropped. */
  async reload(): Promise<void> {
    const turn = ++this.#turn;
    this.loading = true;
    try {
      const data = await this.#read();
      if (turn !== this.#turn) return;
      this.data = data;
      this.failure = null;
    } catch (error) {
      if (turn === this.#turn) this.failure = failureOf(error);
    } finally {
      if (turn === this.#turn) this.loading = false;
    }
  }

  clear() {
    this.#turn += 1;
    this.data = undefined;
    this.failure = null;
  }
}

/** A query that is read when `key` changes, at once. */
export function query<T>(key: () => unknown, read: () => Promise<T>): Query<T> {
  const made = new Query(read);
  $effect(() => {
    key();
    made.clear();
    void made.reload();
  });
  return made;
}
