// What to begin from: nothing, or one of the stack files that the server offers.
import type { Data } from './stacks';

export interface Template {
  name: string;
  about: string;
  content: Data;
}

export const EMPTY: Template = {
  name: 'Empty',
  about: 'A name and a command',
  content: { name: '', command: [], elements: { 'network-lwip': {} } },
};
