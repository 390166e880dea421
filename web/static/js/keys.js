// The keyboard: / n j k Enter g+letter ?

const busy = (target) => target.closest?.("input, textarea, select, dialog[open]") || target.isContentEditable;
const rows = () => [...document.querySelectorAll("[data-rows] tbody tr[data-href]")];

function step(by) {
  const jump = document.querySelector(`a[data-jump="${by > 0 ? "next" : "prev"}"]`);
  if (jump) { location.href = jump.href; return; }
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains("here"));
  const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  all[at]?.classList.remove("here");
  next.classList.add("here");
  next.querySelector(".rowlink")?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

function go(letter) {
  const run = document.getElementById("run")?.dataset.run;
  const tabs = { s: "", d: "?tab=differences", u: "?tab=units", l: "?tab=log", a: "?tab=attempts", f: "?tab=files" };
  if (letter === "r") location.href = "/runs";
  else if (letter === "c") location.href = "/capacity";
  else if (letter === "p") location.href = "/projects";
  else if (run && letter in tabs) location.href = `/runs/${run}${tabs[letter]}`;
}

let begun = 0; // when `g` was pressed

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || busy(event.target)) return;
    if (Date.now() - begun < 1500) {
      begun = 0;
      go(event.key);
      return;
    }
    if (event.key === "/") {
      const field = document.querySelector("[data-search]");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    } else if (event.key === "n") location.href = "/new";
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "g") begun = Date.now();
    else if (event.key === "?") document.getElementById("help").showModal();
  });
}
