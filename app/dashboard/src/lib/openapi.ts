// The server's own description of its interface: forms are made from it, so they cannot be stale.
import { must } from '../api/client';
import type { Schema } from './schema';

export interface Description extends Schema {
  components: { schemas: Record<string, Schema> };
  paths: Record<
    string,
    Record<
      string,
      {
        requestBody?: {
          content: Record<
            string,
            { examples?: Record<string, { summary: string; value: unknown }> }
          >;
        };
      }
    >
  >;
}

let asked: Promise<Description> | undefined;

export function description(): Promise<Description> {
  asked ??= must(
    fetch('/v1/openapi.json').then(async (response) => ({ response, data: await response.json() })),
  ) as Promise<Description>;
  asked.catch(() => (asked = undefined));
  return asked;
}
