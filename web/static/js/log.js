// The log tab: puts window, search, links to lines and the live stream together.

import { bus, follow } from "./live.js";
import { Finder } from "./logfind.js";
import { LogView } from "./logview.js";

const root = document.getElementById("log");
const page = document.getElementById("run");
const run = page.dataset.run;
const live = page.dataset.live === "yes";
const chosen = Number(root.dataset.chosen) || null;
const all = JSON.parse(root.dataset.tasks);
const tasks = chosen ? all.filter((task) => task.id === chosen) : all;
const note = document.getElementById("log-note");
const box = { follow: document.getElementById("log-follow"), wrap: document.getElementById("log-wrap") };
const view = new LogView(document.getElementById("log-view"), run, tasks, !chosen);

for (const part of root.querySelectorAll(".js")) part.hidden = false;
box.follow.parentElement.hidden = !live;

function say(text) {
  note.hidden = !text;
  note.textContent = text;
}

view.addEventListener("note", (event) => say(event.detail));
view.addEventListener("following", (event) => {
  box.follow.checked = event.detail;
  if (event.detail) say("");
});
box.follow.addEventListener("change", () => {
  view.follow(box.follow.checked);
  if (box.follow.checked) view.end();
});

// The frame of lines reaches to the lower edge of the window.
function fit() {
  const room = innerHeight - view.el.getBoundingClientRect().top - scrollY - 12;
  view.el.style.height = room > 320 ? `${room}px` : "";
}
addEventListener("resize", fit);
fit();

function wrap(on) {
  view.el.classList.toggle("wrap", on);
  box.wrap.checked = on;
  try { localStorage.setItem("wrap", on ? "yes" : "no"); } catch { /* for this page only, then */ }
}
box.wrap.addEventListener("change", () => wrap(box.wrap.checked));
try { wrap(localStorage.getItem("wrap") === "yes"); } catch { wrap(false); }

root.querySelector(".log-find").addEventListener("submit", (event) => event.preventDefault());
new Finder(view, run, document.getElementById("log-find"), document.getElementById("log-hits"));
const finder = { prev: "Shift", next: "" };
for (const button of root.querySelectorAll("[data-find]")) {
  button.addEventListener("click", () => {
    const init = { key: "Enter", shiftKey: finder[button.dataset.find] === "Shift", cancelable: true };
    document.getElementById("log-find").dispatchEvent(new KeyboardEvent("keydown", init));
  });
}
root.querySelector("[data-go=top]").addEventListener("click", () => { say(""); view.top(); });
root.querySelector("[data-go=end]").addEventListener("click", () => { say(""); view.end(); view.follow(live); });

// A click on a line's number makes the address a link to it.
view.el.addEventListener("click", (event) => {
  const number = event.target.closest("a.n");
  if (!number || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.replaceState(null, "", number.href);
  view.select(number.parentElement);
});

function linked() {
  const line = Number(/^#L(\d+)$/.exec(location.hash)?.[1]);
  const task = tasks[0];
  return line && task && (chosen || tasks.length === 1) ? { task, line } : null;
}
addEventListener("hashchange", () => { const link = linked(); if (link) view.jump(link.task, link.line); });

function strip(found) {
  if (chosen) return;
  for (const now of found) {
    const known = tasks.find((task) => task.id === now.id);
    if (known) { known.size = Math.max(known.size, now.log_size); continue; }
    const name = now.kind === "prepare" ? "prepare" : `batch ${now.batch}`;
    const task = { id: now.id, title: now.leg === "candidate" ? name : `${now.leg} ${name}`, state: now.state, size: 0 };
    tasks.push(task);
    const link = document.createElement("a");
    link.href = `/runs/${run}?tab=log&task=${task.id}`;
    link.textContent = task.title;
    root.querySelector(".log-tasks").append(link);
  }
}

const link = linked();
if (link) await view.jump(link.task, link.line); else await view.end();
if (live) {
  view.follow(!link);
  bus.addEventListener("tasks", (event) => strip(event.detail));
  bus.addEventListener("log", (event) => view.push(event.detail));
  bus.addEventListener("end", () => { view.follow(false); say(""); });
  follow(chosen ?? "all", view.cursor());
}
