// The one way to the server: a client typed by schemas/openapi.json, errors as `Failure`.
import createClient from 'openapi-fetch';
import type { components, paths } from './schema';

type Schemas = components['schemas'];
export type Application = Schemas['Application'];
export type ApplicationSpec = Schemas['ApplicationSpec-Input'];
export type Claim = Schemas['Claim'];
export type Element = Schemas['ElementResource'];
export type Event = Schemas['Event'];
export type Fault = Schemas['Fault'];
export type FaultSpec = Schemas['FaultSpec-Input'];
export type FileOperation = Schemas['FileFault-Output']['op'][number];
export type FieldError = Schemas['FieldError'];
export type FileChange = Schemas['FileChange'];
export type FileEntry = Schemas['FileEntry'];
export type Explanation = Schemas['Explanation'];
export type Change = FileChange['change'];
export type LogLine = { time: string; stream: 'stdout' | 'stderr'; text: string };
export type Network = Schemas['NetworkSpec'];
export type Plan = Schemas['Plan'];
export type Problem = Schemas['Problem'];
export type Session = Schemas['Session'];
export type State = Application['status']['state'];
export type Usage = Schemas['Usage'];

const RETRY_MS = 250;

/** Once more where reading broke off: a browser on the server's own host drops what is under way
 * whenever an interface comes or goes there, and starting applications makes taps. */
async function fetchTwice(request: Request): Promise<Response> {
  const again = request.method === 'GET' ? request.clone() : null;
  try {
    return await fetch(request);
  } catch (error) {
    if (!again) throw error;
    await new Promise((done) => setTimeout(done, RETRY_MS));
    return fetch(again);
  }
}

/** The same for a part of the page that is loaded when it is asked for. */
export async function loadTwice<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch {
    await new Promise((done) => setTimeout(done, RETRY_MS));
    return load();
  }
}

export const api = createClient<paths>({ baseUrl: '/', fetch: fetchTwice });

/** What the server said was wrong, or that it could not be reached (`status` 0). */
export class Failure extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
  get status() {
    return this.problem.status;
  }
}

const UNREACHABLE: Problem = {
  type: 'urn:cse:problem:unreachable',
  title: 'The server does not answer.',
  status: 0,
  detail: 'The server does not answer.',
  remedy: 'It may be restarting; this page connects again by itself. Is `cse serve` running?',
  errors: [],
};

function problemOf(response: Response, body: unknown): Problem {
  if (body && typeof body === 'object' && 'detail' in body) return body as Problem;
  return { ...UNREACHABLE, status: response.status, detail: `The server said ${response.status}.` };
}

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The body of an answer. Throws `Failure`. */
export async function must<T>(asked: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await asked;
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Failure(UNREACHABLE);
  }
  if (!answer.response.ok) throw new Failure(problemOf(answer.response, answer.error));
  return answer.data as T;
}

/** For streams, which the typed client does not read. Throws `Failure`. */
export async function stream(path: string, signal: AbortSignal, accept: string) {
  let response: Response;
  try {
    response = await fetch(path, { signal, headers: { Accept: accept } });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Failure(UNREACHABLE);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Failure(problemOf(response, body));
  }
  return response.body!.getReader();
}

export function failureOf(error: unknown): Failure {
  if (error instanceof Failure) return error;
  const detail = error instanceof Error ? error.message : String(error);
  return new Failure({ ...UNREACHABLE, title: 'Something went wrong.', detail, remedy: null });
}

/** Of what has no JSON answer. Throws `Failure`. */
export async function text(path: string): Promise<string> {
  const answer = await must(
    fetchTwice(new Request(path)).then(async (response) => ({
      response,
      data: response.ok ? await response.text() : undefined,
      error: response.ok ? undefined : await response.json().catch(() => null),
    })),
  );
  return answer ?? '';
}

/** For paths that are percent-encoded already, which the typed client would encode again. */
export async function read<T>(path: string): Promise<T> {
  return JSON.parse(await text(path)) as T;
}

export const appPath = (name: string) => `/v1/applications/${encodeURIComponent(name)}`;

/** The latest events, oldest first. */
export async function latestEvents(limit: number, application?: string): Promise<Event[]> {
  const query = { limit, ...(application ? { application } : {}) };
  const page = await must(api.GET('/v1/events', { params: { query } }));
  return (page as Schemas['Page_Event_']).items; // and no stream, which was not asked for
}
