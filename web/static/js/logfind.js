// Search in logs: the server looks through all of them, the page marks what it shows.

const MOST = 5_000; // hits; nobody steps through more

export class Finder {
  constructor(view, run, input, output) {
    this.view = view;
    this.run = run;
    this.output = output;
    this.text = "";
    this.hits = [];
    this.at = -1;
    this.asked = 0;
    let timer = 0;
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => this.find(input.value), 250); });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); this.step(event.shiftKey ? -1 : 1); }
      if (event.key === "Escape") { input.value = ""; this.find(""); }
    });
    view.addEventListener("painted", () => this.mark());
  }

  async find(text) {
    const asked = ++this.asked;
    this.text = text.trim();
    this.hits = [];
    this.at = -1;
    this.#say(this.text ? "…" : "");
    this.mark();
    if (!this.text) return;
    for (const task of this.view.tasks) {
      let line = 1;
      while (line && this.hits.length < MOST && task.size) {
        const query = new URLSearchParams({ q: this.text, line, limit: 1000 });
        const answer = await fetch(`/api/v1/runs/${this.run}/tasks/${task.id}/search?${query}`);
        if (asked !== this.asked) return;
        if (!answer.ok) { this.#say("search failed"); return; }
        const found = await answer.json();
        this.hits.push(...found.hits.map((hit) => ({ task, n: hit.n })));
        line = found.next;
        this.#say(`${this.hits.length} …`);
      }
    }
    this.#count();
    if (this.hits.length) this.step(1);
  }

  step(by) {
    if (!this.hits.length) return;
    this.at = (this.at + by + this.hits.length) % this.hits.length;
    const { task, n } = this.hits[this.at];
    this.view.jump(task, n);
    this.#count();
  }

  #count() {
    const many = this.hits.length >= MOST ? `${MOST} or more` : this.hits.length;
    if (!this.hits.length) this.#say("no hit");
    else this.#say(this.at < 0 ? `${many} hits` : `${this.at + 1} of ${many}`);
  }

  #say(text) { this.output.textContent = text; }

  // Mark what is on the page without touching it.
  mark() {
    if (!globalThis.CSS?.highlights) return;
    CSS.highlights.delete("find");
    if (!this.text) return;
    const wanted = this.text.toLowerCase();
    const ranges = [];
    const texts = document.createTreeWalker(this.view.el, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const node = texts.currentNode;
      if (node.parentElement.classList.contains("n")) continue;
      const text = node.data.toLowerCase();
      for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, Math.min(node.length, at + wanted.length));
        ranges.push(range);
      }
    }
    CSS.highlights.set("find", new Highlight(...ranges.slice(0, 20_000)));
  }
}
