// A line of untrusted terminal output as DOM nodes: colours by ansi_up, never through HTML.

import { AnsiUp } from "../vendor/ansi_up.js";

// Operating system commands (titles, links, the clipboard) mean nothing here; a link's text stays.
const OSC = /\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?/g;
const CONTROL = /[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]/g;

const symbol = (c) => (c === "\x7f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0)));

export class Painter extends AnsiUp {
  nodes = [];

  // Called by ansi_up for each piece of one look.
  transform_to_html(piece) {
    const { text, fg, bg } = piece;
    if (!text) return "";
    if (!fg && !bg && !piece.bold && !piece.faint && !piece.italic && !piece.underline) {
      this.nodes.push(document.createTextNode(text));
      return "";
    }
    const span = document.createElement("span");
    span.textContent = text;
    if (piece.bold) span.classList.add("b");
    if (piece.faint) span.classList.add("f");
    if (piece.italic) span.classList.add("i");
    if (piece.underline) span.classList.add("u");
    if (fg) this.colour(span, fg, "fg");
    if (bg) this.colour(span, bg, "bg");
    this.nodes.push(span);
    return "";
  }

  colour(span, found, suffix) {
    // Any colour can come; the style sheet keeps its hue and makes it readable on the page.
    if (found.class_name === "truecolor") {
      span.style.setProperty(`--${suffix}`, `rgb(${found.rgb.join(",")})`);
      span.classList.add(`true-${suffix}`);
    }
    else span.classList.add(`${found.class_name}-${suffix}`);
  }

  // What a terminal would show of the line: of an overwritten one (progress bars) what stood there last.
  paint(text) {
    this.nodes = [];
    const ended = text.replace(/\r+$/, "");
    const shown = ended.slice(ended.lastIndexOf("\r") + 1).replace(OSC, "").replace(CONTROL, symbol);
    this.ansi_to_html(shown);
    this._buffer = ""; // half a sequence at the end of a line must not swallow the next one
    return this.nodes;
  }
}
