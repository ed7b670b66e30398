// Which applications are one node of the graph: all alone while there are few, else those of one
// stack, or of one name but for its number.
import type { Application } from '../api/client';

export const MOST_ALONE = 120;

export interface Grouping {
  /** Node → its applications. */
  nodes: Map<string, Application[]>;
  /** Node of a group → its title. */
  titles: Map<string, string>;
  /** Application → its node. */
  of: Map<string, string>;
}

export function groupsOf(applications: Application[], opened: Set<string>): Grouping {
  const found: Grouping = { nodes: new Map(), titles: new Map(), of: new Map() };
  const many = applications.length > MOST_ALONE;
  const members = new Map<string, Application[]>();
  const titleOf = (app: Application) =>
    app.spec.labels?.['cse.stack'] ?? (app.name.replace(/[-\d]+$/, '') || app.name);
  for (const app of applications) {
    const id = many ? `group:${titleOf(app)}` : app.name;
    members.set(id, [...(members.get(id) ?? []), app]);
  }
  for (const [id, apps] of members) {
    const together = many && apps.length > 3 && !opened.has(id);
    if (together) {
      found.nodes.set(id, apps);
      found.titles.set(id, id.replace('group:', ''));
    }
    for (const app of apps) {
      found.of.set(app.name, together ? id : app.name);
      if (!together) found.nodes.set(app.name, [app]);
    }
  }
  return found;
}
