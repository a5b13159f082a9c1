// The whole way on one strip, to see and to scrub; and the search through it.
const BINS = 480;

class Scrubber {
  constructor(app) {
    this.app = app;
    this.strip = byId("strip");
    this.range = byId("range");
    this.range.addEventListener("input", () => app.moveTo(app.track, Number(this.range.value)));
    const drag = (event) => {
      const box = this.strip.getBoundingClientRect();
      const part = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
      app.moveTo(app.track, Math.min(app.track.rows.length - 1, Math.floor(part * app.track.rows.length)));
    };
    this.strip.addEventListener("pointerdown", (event) => {
      this.strip.setPointerCapture(event.pointerId);
      drag(event);
      this.strip.addEventListener("pointermove", drag);
    });
    this.strip.addEventListener("lostpointercapture", () => this.strip.removeEventListener("pointermove", drag));
  }

  draw() {
    const { track, lanes } = this.app, bins = Math.min(BINS, track.rows.length), parts = [];
    const gap = track.runs.length > 1 ? 2 : 0;
    let top = 0;
    track.runs.forEach((run, column) => {
      const seen = new Set();
      track.rows.forEach((row, r) => {
        if (row[column] < 0) return;
        seen.add(Math.floor(r * bins / track.rows.length) * 64 + lanes.indexOf(run.actor(row[column])));
      });
      let d = "";
      for (const mark of seen) d += `M${mark >> 6} ${top + (mark & 63)}h1v.72h-1z`;
      parts.push(svg("path", { d, class: "ticks" }));
      top += lanes.length + gap;
    });
    this.matches = svg("path", { class: "matches" });
    this.needle = svg("rect", { class: "needle", y: 0, height: top - gap, width: 1 });
    this.bins = bins;
    this.strip.setAttribute("viewBox", `0 0 ${bins} ${top - gap}`);
    this.strip.replaceChildren(this.matches, ...parts, this.needle);
    this.height = top - gap;
    this.range.max = String(track.rows.length - 1);
    this.drawMatches();
  }

  drawMatches() {
    const { track, search } = this.app, seen = new Set();
    if (search.words.length) {
      track.rows.forEach((row, r) => {
        if (row.some((index, column) => index >= 0 && search.hit(track.runs[column], index))) {
          seen.add(Math.floor(r * this.bins / track.rows.length));
        }
      });
    }
    this.matches.setAttribute("d", [...seen].map((bin) => `M${bin} 0h1v${this.height}h-1z`).join(""));
  }

  update() {
    const { track } = this.app;
    this.range.value = String(track.at);
    this.range.setAttribute("aria-valuetext", this.app.spoken());
    const width = Math.max(1, this.bins / 240);
    this.needle.setAttribute("width", width);
    this.needle.setAttribute("x", Math.min(this.bins - width, track.at * this.bins / track.rows.length));
  }
}

// Words that must all be found: plain ones anywhere in a step, `key:value` in its name, its actor or a field.
class Search {
  constructor(app) {
    this.app = app;
    this.words = [];
    this.cache = new Map();
    this.box = byId("find");
    this.box.addEventListener("input", () => this.set(this.box.value));
    this.box.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { this.next(event.shiftKey ? -1 : 1); event.preventDefault(); }
      if (event.key === "Escape") { this.box.value = ""; this.set(""); this.box.blur(); }
    });
    byId("find-next").addEventListener("click", () => this.next(1));
    byId("find-previous").addEventListener("click", () => this.next(-1));
  }

  set(text) {
    this.words = text.toLowerCase().split(/\s+/).filter((word) => word);
    this.cache.clear();
    this.app.scrubber.drawMatches();
    this.app.redraw();
    this.tell("");
  }

  tell(before) {
    const { track } = this.app;
    let count = 0;
    if (this.words.length) {
      track.runs.forEach((run) => { for (let i = 0; i < run.length; i++) if (this.hit(run, i)) count++; });
    }
    const found = count === 0 ? "no match" : count === 1 ? "1 match" : `${grouped(count)} matches`;
    byId("found").textContent = this.words.length ? before + found : "";
    byId("find-next").disabled = byId("find-previous").disabled = count === 0;
  }

  hit(run, index) {
    if (!this.words.length) return false;
    let cache = this.cache.get(run);
    if (!cache) this.cache.set(run, cache = new Map());
    const key = (run.kind[index] * 2097152 + run.text[index]) * 2097152 + run.field[index];
    let answer = cache.get(key);
    if (answer === undefined) cache.set(key, answer = this.examine(run, index));
    return answer;
  }

  examine(run, index) {
    const name = run.name(index).toLowerCase(), actor = run.actor(index).toLowerCase(), fields = run.fields(index) ?? {};
    const all = `${name} ${actor} ${run.sentence(index)} ${JSON.stringify(fields)}`.toLowerCase();
    return this.words.every((word) => {
      const colon = word.indexOf(":");
      if (colon > 0) {
        const key = word.slice(0, colon), value = word.slice(colon + 1);
        if (key === "name") return name.includes(value);
        if (key === "actor") return actor.replace(/\s+/g, "").includes(value);
        if (Object.hasOwn(fields, key)) return shown(fields[key]).toLowerCase() === value;
      }
      return all.includes(word);
    });
  }

  next(direction) {
    const { track } = this.app, total = track.rows.length;
    if (!this.words.length) return;
    for (let step = 1; step <= total; step++) {
      const row = (track.at + direction * step + total * 2) % total;
      if (track.rows[row].some((index, column) => index >= 0 && this.hit(track.runs[column], index))) {
        this.app.moveTo(track, row);
        return;
      }
    }
  }
}
