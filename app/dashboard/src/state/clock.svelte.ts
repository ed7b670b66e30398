// The time of day, for ages and countdowns: one timer for the whole page.
let now = $state(Date.now());
setInterval(() => {
  if (!document.hidden) now = Date.now();
}, 1000);

export const time = {
  get now() {
    return now;
  },
  since: (iso: string) => (now - Date.parse(iso)) / 1000,
};
