// Short messages at the edge: what was done, or why it could not be.
import { failureOf } from '../api/client';

export interface Notice {
  id: number;
  kind: 'done' | 'failed';
  text: string;
  remedy?: string | null;
}

let shown = $state<Notice[]>([]);
let last = 0;

function add(kind: Notice['kind'], text: string, remedy?: string | null) {
  const id = ++last;
  shown = [...shown.slice(-3), { id, kind, text, remedy }];
  setTimeout(() => dismiss(id), kind === 'done' ? 4000 : 12000);
}

export function dismiss(id: number) {
  shown = shown.filter((notice) => notice.id !== id);
}

export const notices = {
  get shown() {
    return shown;
  },
  done: (text: string) => add('done', text),
  failed(error: unknown) {
    const { problem } = failureOf(error);
    add('failed', problem.detail, problem.remedy);
  },
};
