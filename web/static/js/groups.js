// Causes of differences while a run goes on: those that are shown keep their places, new ones come below them.

const EVERY = 1_000;
let asked = 0;
let waiting = null;

// Who fills in a form, or stands somewhere in the list with a keyboard, is not disturbed.
const busy = (place) => place.querySelector("details[open]") || place.querySelector(".group-list")?.contains(document.activeElement);

async function refresh() {
  waiting = null;
  const place = document.querySelector("#groups[data-live]");
  if (!place) return;
  if (busy(place)) { later(EVERY); return; }
  asked = Date.now();
  const shown = [...place.querySelectorAll(".group-list > li")].map((one) => one.dataset.key).join(",");
  const answer = await fetch(`${place.dataset.live}?shown=${shown}`, { headers: { "HX-Request": "true" } }).catch(() => null);
  if (!answer?.ok || busy(place)) return;
  globalThis.htmx.swap({ target: place, sourceElement: place, text: await answer.text(), swap: "innerMorph" });
}

function later(milliseconds) {
  waiting ??= setTimeout(refresh, milliseconds);
}

document.body.addEventListener("seatrial:changed", () => later(Math.max(0, asked + EVERY - Date.now())));
