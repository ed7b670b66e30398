// What the overview's search line means: words of a name, `label=value`, `state:running`,
// `element:clock`. All must fit.
import type { Application } from '../api/client';

export function matcher(text: string): (application: Application) => boolean {
  const tests = text.trim().toLowerCase().split(/\s+/).filter(Boolean).map(test);
  return (application) => tests.every((fits) => fits(application));
}

function test(word: string): (application: Application) => boolean {
  const [, field, value] = /^(state|element|runtime|network):(.*)$/.exec(word) ?? [];
  if (field === 'state') return (app) => app.status.state.startsWith(value!);
  if (field === 'runtime') return (app) => (app.spec.runtime ?? '').startsWith(value!);
  if (field === 'network') return (app) => (app.spec.network?.name ?? '').includes(value!);
  if (field === 'element')
    return (app) => Object.keys(app.spec.elements ?? {}).some((name) => name.includes(value!));
  const [key, label] = word.split('=', 2);
  if (label !== undefined)
    return (app) => {
      const found = Object.entries(app.spec.labels ?? {}).find(
        ([name]) => name.toLowerCase() === key,
      );
      return found !== undefined && found[1].toLowerCase().startsWith(label);
    };
  return (app) =>
    app.name.includes(word) ||
    (app.status.address ?? '').startsWith(word) ||
    (app.spec.command[0] ?? '').toLowerCase().includes(word);
}
