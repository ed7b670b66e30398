// Places within the page are ordinary paths, so that every one can be linked to and reloaded.
let path = $state(location.pathname);
let query = $state(location.search);

addEventListener('popstate', () => {
  path = location.pathname;
  query = location.search;
});

export const place = {
  get path() {
    return path;
  },
  /** The path's words, decoded. */
  get parts(): string[] {
    return path.split('/').filter(Boolean).map(decodeURIComponent);
  },
  get query() {
    return new URLSearchParams(query);
  },
};

export function go(to: string, { replace = false } = {}) {
  if (to === location.pathname + location.search) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', to);
  const moved = path !== location.pathname;
  path = location.pathname;
  query = location.search;
  if (moved) document.querySelector('main')?.scrollTo(0, 0);
}

/** Keep what is looked for in the address, without a step in the history. */
export function setQuery(values: Record<string, string>) {
  const next = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(values)) {
    if (value) next.set(key, value);
    else next.delete(key);
  }
  const text = next.toString();
  go(location.pathname + (text ? `?${text}` : ''), { replace: true });
}

/** Ordinary clicks on links of our own stay within the page. */
export function followLinks(event: MouseEvent) {
  if (event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.('a');
  if (!link || link.target || link.hasAttribute('download')) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || url.pathname.startsWith('/v1')) return;
  event.preventDefault();
  go(url.pathname + url.search);
}

export const toApp = (name: string, tab = '') =>
  `/applications/${encodeURIComponent(name)}${tab ? `/${tab}` : ''}`;
