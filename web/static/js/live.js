// A run's page while the run goes on: the server's fragments are morphed in, so nothing jumps and focus stays.

import { localise } from "./times.js";

const page = document.getElementById("run");
const state = document.getElementById("live-state");
const say = document.getElementById("say");
const FALLBACK = 10_000; // a browser that cannot follow the stream asks this often

let final = false;
let word = "";

export const bus = new EventTarget(); // "log": bytes for the log viewer; "tasks": their sizes and states

function tell(text) {
  state.hidden = !text;
  state.textContent = text;
}

function mark(head) {
  document.title = head.dataset.title;
  const icon = document.getElementById("favicon");
  icon.href = `${document.body.dataset.icons}${head.dataset.kind}.svg`;
  const now = head.querySelector(".word")?.textContent ?? "";
  if (word && now !== word) say.textContent = `${now}. ${head.querySelector(".why")?.textContent ?? ""}`;
  word = now;
  final = head.dataset.final === "yes";
}

export function show(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  for (const part of template.content.children) {
    const place = document.getElementById(part.id);
    if (place) globalThis.htmx.swap({ target: place, sourceElement: place, text: part.innerHTML, swap: "innerMorph" });
    if (part.id === "live-head") mark(part);
  }
  requestAnimationFrame(() => localise());
  document.body.dispatchEvent(new CustomEvent("seatrial:changed"));
}

async function ask() {
  const answer = await fetch(`/runs/${page.dataset.run}/live`, { headers: { "HX-Request": "true" } });
  if (answer.ok) show(await answer.text());
}

function poll(why) {
  tell(why);
  const timer = setInterval(async () => {
    try { await ask(); } catch { return; }
    if (final) { clearInterval(timer); tell(""); }
  }, FALLBACK);
}

// A piece of a log: a head in JSON, then the text, with US for line ends; bytes that are no text stand in the head.
function piece(data) {
  const at = data.indexOf("\n");
  const head = JSON.parse(at < 0 ? data : data.slice(0, at));
  const bytes = head.base64 === undefined
    ? new TextEncoder().encode(data.slice(at + 1).replaceAll("\x1f", "\n"))
    : Uint8Array.from(atob(head.base64), (c) => c.charCodeAt(0));
  return { task: head.task, offset: head.offset, bytes };
}

// `logs`: all, none or a task's number; `cursor`: where the log viewer stands.
export function follow(logs, cursor) {
  const run = page.dataset.run;
  const source = new EventSource(`/api/v1/runs/${run}/stream?view=page&logs=${logs}&cursor=${encodeURIComponent(cursor)}`);
  source.addEventListener("open", () => tell(""));
  source.addEventListener("page", (event) => show(JSON.parse(event.data).html));
  source.addEventListener("run", (event) => bus.dispatchEvent(new CustomEvent("tasks", { detail: JSON.parse(event.data).tasks })));
  source.addEventListener("log", (event) => bus.dispatchEvent(new CustomEvent("log", { detail: piece(event.data) })));
  source.addEventListener("away", (event) => tell(JSON.parse(event.data).text));
  source.addEventListener("end", () => { source.close(); tell(""); bus.dispatchEvent(new CustomEvent("end")); });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) poll(`Live updates are not available now; this page asks every ${FALLBACK / 1000} s.`);
    else tell("Connection lost; reconnecting…");
  });
  addEventListener("pagehide", () => source.close());
  return source;
}

if (page && page.dataset.live === "yes" && page.dataset.tab !== "log") follow("none", "0~");
