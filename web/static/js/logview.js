// A window on logs of any length: some thousand lines in the page, more are loaded at its ends, far ones dropped.

import { Block } from "./block.js";

const PAGE = 1_000; // lines a request
const KEPT = 8_000; // lines in the page
const EDGE = 800; // pixels from an end at which more is loaded
const BACKLOG = 1 << 21; // live bytes waiting to be painted; beyond that only the end is shown
const BEFORE = 20; // lines that are shown of a task which goes on speaking in a merged view

export class LogView extends EventTarget {
  // `merged`: the logs of a whole run, each line with its task's name; what is printed from now on is woven together as
  // it comes.
  constructor(el, run, tasks, merged) {
    super();
    this.el = el;
    this.run = run;
    this.tasks = tasks; // in order; all that this view shows
    this.merged = merged;
    this.blocks = [];
    this.following = false;
    this.waiting = [];
    this.waitingSize = 0;
    this.turn = Promise.resolve(); // loads happen one after another
    this.painting = false;
    this.own = 0; // the scroll position that we set ourselves
    el.addEventListener("scroll", () => this.#scrolled(), { passive: true });
  }

  // ---- loading ----

  async #lines(task, start, count) {
    const answer = await fetch(`/api/v1/runs/${this.run}/tasks/${task.id}/lines?start=${start}&count=${count}`);
    if (!answer.ok) throw new Error(`the log could not be read (${answer.status})`);
    return answer.json();
  }

  #then(action) {
    this.turn = this.turn.then(action).catch((error) => this.#note(`${error.message}; scroll to try again.`));
    return this.turn;
  }

  #note(text) { this.dispatchEvent(new CustomEvent("note", { detail: text })); }

  // Show a line of a task in the middle.
  jump(task, n) {
    this.follow(false);
    return this.#then(async () => {
      const found = this.#block(task, n);
      if (!found) {
        const answer = await this.#lines(task, Math.max(1, n - 300), PAGE);
        if (!answer.lines.length) { this.#note(`The log has ${answer.total} lines; there is no line ${n}.`); return; }
        this.#replace(task, answer);
      }
      const line = this.#block(task, n)?.line(n);
      if (!line) { this.#note(`There is no line ${n} in this log.`); return; }
      const middle = line.offsetTop - this.el.clientHeight / 2;
      this.#scroll(middle);
      this.select(line);
    });
  }

  select(line) {
    for (const old of this.el.querySelectorAll(".linked")) old.classList.remove("linked");
    line.classList.add("linked");
  }

  // Show the end of the last log that has one.
  end() {
    return this.#then(async () => {
      const task = this.tasks.findLast((one) => one.size > 0);
      if (!task) return;
      const answer = await this.#lines(task, -PAGE, PAGE);
      this.waiting = [];
      this.waitingSize = 0;
      if (answer.lines.length) {
        this.#replace(task, answer);
        this.blocks[0].live = true;
      }
      this.#toBottom();
    });
  }

  top() {
    this.follow(false);
    return this.#then(async () => {
      const task = this.tasks.find((one) => one.size > 0);
      if (!task) return;
      const answer = await this.#lines(task, 1, PAGE);
      if (answer.lines.length) this.#replace(task, answer);
      this.#scroll(0);
    });
  }

  #replace(task, answer) {
    this.el.replaceChildren();
    this.blocks = [];
    this.#insert(new Block(this.run, task, answer), this.blocks.length);
  }

  #more() {
    return this.#then(async () => {
      const last = this.blocks.at(-1);
      if (!last || last.live || !this.#nearBottom()) return;
      let task = last.task;
      let start = last.last + 1;
      if (last.atEnd) {
        task = this.tasks.slice(this.tasks.indexOf(task) + 1).find((one) => one.size > 0);
        start = 1;
        if (!task) { last.live = true; return; }
      }
      const answer = await this.#lines(task, start, PAGE);
      if (answer.lines.length) this.#insert(new Block(this.run, task, answer), this.blocks.length);
      else last.atEnd = true;
      this.#trim(true);
    });
  }

  #less() {
    return this.#then(async () => {
      const first = this.blocks[0];
      if (!first || this.el.scrollTop > EDGE) return;
      const wanted = this.#before(first);
      if (!wanted) return;
      const answer = await this.#lines(wanted.task, wanted.start, wanted.count);
      if (!answer.lines.length) return;
      this.#keepPlace(() => this.#insert(new Block(this.run, wanted.task, answer), 0));
      this.#trim(false);
    });
  }

  // What comes above a block: what its task printed before, or the end of the task before it, without what is shown already.
  #before(first) {
    for (let at = this.tasks.indexOf(first.task); at >= 0; at -= 1) {
      const task = this.tasks[at];
      const shown = this.blocks.find((block) => block.task === task);
      if (!shown && task.size > 0) return { task, start: -PAGE, count: PAGE };
      const start = Math.max(1, (shown?.first ?? 1) - PAGE);
      if (shown && shown.first > start) return { task, start, count: shown.first - start };
    }
    return null;
  }

  #insert(block, at) {
    const next = this.blocks[at]?.head ?? this.blocks[at]?.el ?? null;
    if (this.merged) block.sign();
    if (this.merged && block.first === 1) {
      block.head = document.createElement("div");
      block.head.className = "log-head";
      block.head.textContent = block.task.title;
      this.el.insertBefore(block.head, next);
    }
    this.el.insertBefore(block.el, next);
    this.blocks.splice(at, 0, block);
    this.dispatchEvent(new Event("painted"));
  }

  #trim(fromTop) {
    let lines = this.blocks.reduce((sum, block) => sum + block.size, 0);
    while (lines > KEPT && this.blocks.length > 1) {
      const gone = fromTop ? this.blocks.shift() : this.blocks.pop();
      if (!fromTop) Object.assign(this.blocks.at(-1), { live: false, atEnd: false });
      const remove = () => { gone.head?.remove(); gone.el.remove(); };
      if (fromTop) this.#keepPlace(remove); else remove();
      lines -= gone.size;
    }
  }

  #block(task, n) {
    return this.blocks.find((block) => block.task === task && block.first <= n && n <= block.last);
  }

  // ---- live ----

  // Where the stream has to go on, for each task that is known now; written as the server does (web/cursor.py).
  cursor() {
    const places = [];
    let before = 0;
    for (const task of this.tasks.toSorted((one, other) => one.id - other.id)) {
      const offset = this.blocks.findLast((block) => block.task === task && block.atEnd)?.offset ?? task.size;
      if (!offset) continue;
      const gap = task.id - before;
      places.push(gap === 1 ? offset.toString(16) : `${gap.toString(16)}-${offset.toString(16)}`);
      before = task.id;
    }
    return `0~${places.join(".")}`;
  }

  push({ task: id, offset, bytes }) {
    const task = this.tasks.find((one) => one.id === id);
    if (!task) return;
    task.size = Math.max(task.size, offset + bytes.length);
    this.waiting.push({ task, offset, bytes });
    this.waitingSize += bytes.length;
    if (this.painting) return;
    this.painting = true;
    requestAnimationFrame(() => this.#then(() => this.#paint()));
  }

  async #paint() {
    this.painting = false;
    if (this.waitingSize > BACKLOG && this.following) { this.end(); return; }
    const chunks = this.waiting;
    this.waiting = [];
    this.waitingSize = 0;
    for (const { task, offset, bytes } of chunks) await this.#grow(task, offset, bytes);
    this.#trim(true);
    if (this.following) this.#toBottom();
    this.dispatchEvent(new Event("painted"));
  }

  async #grow(task, offset, bytes) {
    const last = this.blocks.at(-1);
    const tail = this.blocks.findLast((block) => block.task === task && block.atEnd);
    if (tail && (tail === last || !last.live)) {
      this.#append(tail, offset, bytes);
    } else if (tail) {
      this.#weave(tail, offset, bytes);
    } else if (!last || last.live) {
      const answer = await this.#lines(task, -BEFORE, BEFORE);
      if (!answer.lines.length) return;
      if (!last) this.el.replaceChildren();
      this.#add(new Block(this.run, task, answer));
    }
  }

  // Lines of different tasks stand in the order in which they came; one that was begun is ended where it began.
  #weave(tail, offset, bytes) {
    const fresh = bytes.subarray(Math.max(0, tail.offset - offset));
    if (!fresh.length) return;
    let at = Math.max(offset, tail.offset);
    const end = tail.open ? fresh.indexOf(10) + 1 || fresh.length : 0;
    if (end) this.#append(tail, at, fresh.subarray(0, end));
    at += end;
    if (end === fresh.length || at > tail.offset) return;
    const block = tail.next();
    block.append(at, fresh.subarray(end));
    this.#add(block);
  }

  // Add a block below all others, which are up to date.
  #add(block) {
    block.live = true;
    this.#insert(block, this.blocks.length);
  }

  #append(block, offset, bytes) {
    const above = block.el.offsetTop + block.el.offsetHeight <= this.el.scrollTop;
    let whole = true;
    const append = () => { whole = block.append(offset, bytes); };
    if (above && !this.following) this.#keepPlace(append); else append();
    if (!whole) Object.assign(block, { atEnd: false, live: false }); // a gap: it is loaded when it is looked at
    if (block.size > KEPT / 2) this.#split(block);
  }

  // A block that grew large gives its beginning to a block of its own, so that it can be dropped.
  #split(block) {
    const half = Math.floor(block.size / 2);
    const el = block.el.cloneNode(false); // with its signature
    el.append(...[...block.el.children].slice(0, half));
    block.el.before(el);
    const early = Object.assign(Object.create(Block.prototype), {
      run: block.run, task: block.task, el, head: block.head, first: block.first, last: block.first + half - 1, atEnd: false, live: false,
    });
    block.first += half;
    block.head = undefined;
    this.blocks.splice(this.blocks.indexOf(block), 0, early);
  }

  // ---- scrolling ----

  follow(on) {
    if (this.following === on) return;
    this.following = on;
    this.dispatchEvent(new CustomEvent("following", { detail: on }));
  }

  #scroll(to) {
    this.el.scrollTop = to;
    this.own = this.el.scrollTop;
  }

  #toBottom() { this.#scroll(this.el.scrollHeight); }

  #keepPlace(change) {
    const { scrollHeight, scrollTop } = this.el;
    change();
    this.#scroll(scrollTop + this.el.scrollHeight - scrollHeight);
  }

  #nearBottom() { return this.el.scrollHeight - this.el.scrollTop - this.el.clientHeight < EDGE; }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.el;
    const up = scrollTop < this.own - 4;
    this.own = scrollTop;
    if (up && this.following && scrollHeight - scrollTop - clientHeight > 40) {
      this.follow(false);
      this.#note("Not following any more, because you scrolled up. “End” goes on.");
    }
    if (scrollTop < EDGE) this.#less();
    if (this.#nearBottom()) this.#more();
  }
}
