// Lines of one task that follow each other, as they stand in the page.

import { Painter } from "./paint.js";

// As on the server: of a longer line the beginning is shown.
const LINE_LIMIT = 16_384;
const count = new Intl.NumberFormat();

export class Block {
  constructor(run, task, answer) {
    this.run = run;
    this.task = task;
    this.painter = new Painter();
    this.decoder = new TextDecoder();
    this.el = document.createElement("div");
    this.el.className = "block";
    this.first = answer.lines[0]?.n ?? answer.total + 1; // without lines: those after all there are
    this.last = this.first - 1;
    this.offset = answer.next_offset; // of the first byte that is not shown
    this.open = null; // the last line while no newline ends it
    this.live = false; // in a merged view: nothing that was printed later is missing below it
    const end = answer.lines.length - 1;
    this.atEnd = end < 0 || answer.lines[end].n >= answer.total;
    answer.lines.forEach((line, at) => this.#add(line.text, line.cut, at === end && answer.open));
  }

  // Say before each line whose it is.
  sign() {
    this.el.classList.add("signed");
    this.el.style.setProperty("--who", JSON.stringify(this.task.title));
  }

  // Begin a block for what this one's task prints next, further down; its own last line must have ended.
  next() {
    this.atEnd = false;
    return new Block(this.run, this.task, { lines: [], total: this.last, next_offset: this.offset, open: false });
  }

  get size() { return this.last - this.first + 1; }

  line(n) { return this.el.children[n - this.first] ?? null; }

  #add(text, cut, open) {
    this.last += 1;
    const row = document.createElement("div");
    row.className = "line";
    const number = document.createElement("a");
    number.className = "n";
    number.href = `/runs/${this.run}?tab=log&task=${this.task.id}#L${this.last}`;
    number.textContent = this.last;
    row.append(number, document.createElement("span"));
    row.lastChild.className = "t";
    this.#fill(row, text, cut);
    this.el.append(row);
    this.open = open ? { row, text, cut } : null;
  }

  #fill(row, text, cut) {
    row.lastChild.replaceChildren(...this.painter.paint(text));
    if (cut) {
      const note = document.createElement("span");
      note.className = "cut";
      note.textContent = ` … ${count.format(cut)} more bytes in this line; the download has them`;
      row.lastChild.append(note);
    }
  }

  // Append bytes that begin at `offset`; what is shown already is skipped. False when there is a gap.
  append(offset, bytes) {
    if (offset > this.offset) return false;
    const fresh = bytes.subarray(this.offset - offset);
    if (!fresh.length) return true;
    this.offset += fresh.length;
    const pieces = this.decoder.decode(fresh, { stream: true }).split("\n");
    pieces.forEach((piece, at) => {
      const ends = at < pieces.length - 1;
      if (this.open) this.#extend(piece, ends);
      else if (piece || ends) this.#add(piece.slice(0, LINE_LIMIT), Math.max(0, piece.length - LINE_LIMIT), !ends);
    });
    return true;
  }

  #extend(piece, ends) {
    const { row, text, cut } = this.open;
    const whole = text + piece.slice(0, Math.max(0, LINE_LIMIT - text.length));
    this.open.cut = cut + text.length + piece.length - whole.length;
    this.open.text = whole;
    this.#fill(row, whole, this.open.cut);
    if (ends) this.open = null;
  }
}
