// Times in the reader's zone; "3 min ago" stays true while the page is open.

const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" });

function zoneName(at) {
  return zone.formatToParts(at).find((part) => part.type === "timeZoneName")?.value ?? "";
}

export function ago(at, now = Date.now()) {
  const seconds = (now - at) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 5400) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

export function soon(at, now = Date.now()) {
  const seconds = (at - now) / 1000;
  if (seconds > 90) return `in ${Math.round(seconds / 60)} min`;
  return seconds > 0 ? `in ${Math.ceil(seconds)} s` : "any moment";
}

function clock(at, now = new Date()) {
  return at.toDateString() === now.toDateString() ? day.format(at) : whole.format(at);
}

function shown(time, at) {
  if (time.classList.contains("clock")) return clock(at);
  return time.classList.contains("soon") ? soon(at.valueOf()) : ago(at.valueOf());
}

export function localise(root = document) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.valueOf())) continue;
    const title = `${whole.format(at)} ${zoneName(at)}`;
    if (time.title !== title) time.title = title;
    const text = shown(time, at);
    if (time.textContent !== text) time.textContent = text;
  }
}
