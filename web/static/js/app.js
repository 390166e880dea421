// What every page has: theme, times, keyboard, copy buttons, rows that can be clicked, questions before an act.

import { listen } from "./keys.js";
import { localise } from "./times.js";

function reveal() {
  for (const button of document.querySelectorAll("#theme, #help-open, [data-copy]")) button.hidden = false;
  for (const field of document.querySelectorAll("[data-key]")) field.value ||= crypto.randomUUID?.() ?? String(Math.random());
}

function clicked(event) {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    navigator.clipboard?.writeText(copy.dataset.copy).then(() => {
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
    return;
  }
  // A link that narrows a list keeps what the list is narrowed by already, as its form shows it now.
  const narrow = event.target.closest("a[data-narrow]");
  if (narrow) {
    const address = new URL(narrow.href);
    for (const name of ["text", "class", "sort"]) {
      const value = document.getElementById("diff-form").elements[name].value;
      if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
    }
    narrow.href = address;
  }
  const asks = event.target.closest("[data-confirm]");
  if (asks && !confirm(asks.dataset.confirm)) { event.preventDefault(); return; }
  const row = event.target.closest("tr[data-href]");
  const selecting = String(getSelection()) !== "";
  if (row && !event.target.closest("a, button, input") && !selecting) {
    if (event.ctrlKey || event.metaKey) open(row.dataset.href); else location.href = row.dataset.href;
  }
}

reveal();
localise();
listen();
setInterval(localise, 20_000);
setInterval(() => { if (document.querySelector("time.soon")) localise(); }, 1000);
document.addEventListener("click", clicked);
document.addEventListener("change", (event) => { if (event.target.matches?.("[data-submit]")) event.target.form.requestSubmit(); });
document.addEventListener("htmx:after:swap", () => { reveal(); localise(); });
document.getElementById("theme")?.addEventListener("click", () => globalThis.switchTheme());
document.getElementById("help-open")?.addEventListener("click", () => document.getElementById("help").showModal());
