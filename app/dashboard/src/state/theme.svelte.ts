// Dark, light, or as the system has it; kept in this browser.
export type Theme = 'system' | 'light' | 'dark';

const system = matchMedia('(prefers-color-scheme: dark)');
let chosen = $state<Theme>((localStorage.getItem('theme') as Theme | null) ?? 'system');
let systemDark = $state(system.matches);
system.addEventListener('change', () => (systemDark = system.matches));

export const theme = {
  get chosen() {
    return chosen;
  },
  get dark() {
    return chosen === 'dark' || (chosen === 'system' && systemDark);
  },
  set(value: Theme) {
    chosen = value;
    localStorage.setItem('theme', value);
    apply();
  },
  next() {
    const order: Theme[] = ['system', 'light', 'dark'];
    theme.set(order[(order.indexOf(chosen) + 1) % order.length]!);
  },
};

function apply() {
  if (chosen === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}
apply();

/** A colour of app.css as it is now, for what draws on a canvas. */
export function colour(name: string): string {
  const probe = document.createElement('span');
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
