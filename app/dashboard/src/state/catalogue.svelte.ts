// The elements there are: read once, when first asked for.
import { api, failureOf, must, type Element, type Failure } from '../api/client';

let elements = $state.raw<Element[] | null>(null);
let failure = $state.raw<Failure | null>(null);
let asked: Promise<void> | undefined;

export const catalogue = {
  get elements() {
    return elements;
  },
  get failure() {
    return failure;
  },
  load() {
    asked ??= must(api.GET('/v1/elements')).then(
      (page) => {
        elements = page.items;
        failure = null;
      },
      (error) => {
        failure = failureOf(error);
        asked = undefined;
      },
    );
  },
  reload() {
    asked = undefined;
    catalogue.load();
  },
  find: (name: string) => elements?.find((one) => one.name === name),
};
