// Who this browser is to the server, and whether a token is wanted first.
import { api, failureOf, must, type Session } from '../api/client';

const RANK = { read: 0, operate: 1, admin: 2 };

let found = $state.raw<Session | null>(null);
let wanted = $state(false);
let refusal = $state('');

export const session = {
  get me() {
    return found;
  },
  /** The server asks for a token that it has not been given. */
  get wanted() {
    return wanted;
  },
  get refusal() {
    return refusal;
  },
  /** Whether it is worth trying: the server decides. */
  may: (scope: keyof typeof RANK) => !found || RANK[found.scope] >= RANK[scope],
  /** Asked at the beginning, and whenever the connection is lost: was it for want of a token? */
  async ask(): Promise<boolean> {
    try {
      found = await must(api.GET('/v1/session'));
      wanted = false;
    } catch (error) {
      const failure = failureOf(error);
      if (failure.status === 401) {
        found = null;
        wanted = true;
      }
    }
    return !wanted;
  },
  async login(token: string) {
    refusal = '';
    try {
      await must(api.POST('/v1/session', { body: { token } }));
    } catch (error) {
      refusal = failureOf(error).problem.detail;
      return false;
    }
    return session.ask();
  },
  async logout() {
    await must(api.DELETE('/v1/session'));
    location.assign('/');
  },
};
