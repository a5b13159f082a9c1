// The page: panes, the step they show, and the ways to move it.
const CHAIN = 12;
const EFFECTS = 40;

class Pane {
  constructor(app, number) {
    this.app = app;
    this.id = `pane-${number}`;
    this.open = new Set(); // parts whose rows that never change are shown
    this.root = byId("pane").content.firstElementChild.cloneNode(true);
    this.root.id = this.id;
    this.part = (name) => this.root.querySelector(`.${name}`);
    this.part("steps").id = `${this.id}-steps`;
    this.root.addEventListener("focusin", () => app.activate(this));
    this.root.addEventListener("pointerdown", () => app.activate(this));
  }

  show(track, column) {
    this.track = track;
    this.column = column;
    this.run = track.runs[column];
    const heading = this.part("mode");
    heading.textContent = this.run.title;
    heading.id = `${this.id}-mode`;
    this.root.setAttribute("aria-labelledby", heading.id);
    this.part("steps").setAttribute("aria-label", `Steps, ${this.run.title}`);
    const { header } = this.run;
    this.part("about").textContent = [header.profile, header.machine, header.gic ? `GICv${header.gic}` : null].filter(Boolean).join(" · ");
    const cut = this.part("cut");
    cut.hidden = !this.run.missing;
    cut.textContent = this.run.missing;
    if (!this.sequence) this.sequence = new Sequence(this, this.app.lanes);
    this.sequence.measure();
  }

  // The event at the current row, -1 for none; and the last one up to here.
  get here() { return this.track.rows[this.track.at][this.column]; }

  get last() { return this.track.last[this.column][this.track.at]; }

  causality() {
    const at = this.here;
    if (at < 0) return { chain: new Set(), effects: new Set() };
    return { chain: new Set(this.run.chain(at, CHAIN)), effects: new Set(this.run.effects(at).slice(0, EFFECTS)) };
  }

  spoken() {
    const { run, here } = this;
    if (here < 0) return `${run.title}: no such step here`;
    const changes = this.changeTexts().slice(0, 6);
    return `${run.title}, step ${here + 1} of ${run.length}. ${run.actor(here)} ${run.sentence(here)}.` +
      (changes.length ? ` ${changes.join("; ")}.` : "");
  }

  changeTexts() {
    const { run, here } = this;
    if (here < 0) return [];
    const state = run.state(here);
    return [...run.changes(here)].map(([path, before]) => changeText(path, before, state.has(path) ? state.get(path) : "gone"));
  }

  draw() {
    this.sequence.reveal();
    this.sequence.draw();
    this.drawStep();
    drawState(this.part("state"), this.run, this.here >= 0 ? this.here : this.last, this.open);
    if (this.here < 0) this.root.querySelectorAll(".touched").forEach((card) => card.classList.remove("touched"));
  }

  drawStep() {
    const { run, here } = this;
    this.part("count").textContent = here >= 0
      ? `step ${grouped(here + 1)} of ${grouped(run.length)}`
      : `after step ${grouped(this.last + 1)} of ${grouped(run.length)}`;
    const box = this.part("step");
    box.classList.toggle("absent", here < 0);
    if (here < 0) {
      const other = this.track.runs[1 - this.column];
      box.replaceChildren(
        el("p", { class: "says" }, "No such step here"),
        el("p", { class: "detail" }, `What “${other.title}” does at this point, “${run.title}” does not have to.`),
      );
      return;
    }
    const fields = Object.entries(run.fields(here) ?? {});
    box.replaceChildren(
      el("p", { class: "says" }, el("strong", {}, run.actor(here)), " ", run.sentence(here)),
      el(
        "p", { class: "detail" },
        el("span", {}, `t = ${grouped(run.time[here])} ns`), el("code", {}, run.name(here)), el("span", {}, `#${run.number[here]}`),
        ...fields.slice(0, 24).map(([key, value]) => el("span", { class: "field" }, el("i", {}, key), " ", shown(value).slice(0, 400))),
      ),
      this.links("Because", run.chain(here, CHAIN), "cause", run.causeNumber(here)),
      this.links("Leads to", run.effects(here), "effect", 0),
    );
  }

  links(title, indices, kind, number) {
    const { run } = this, box = el("div", { class: `links ${kind}` }, el("span", { class: "label" }, title));
    const direct = kind === "cause" && run.cause(this.here) < 0 && number > 0;
    if (direct) box.append(el("span", { class: "note" }, `step #${number}, which is not in this page`));
    else if (!indices.length) box.append(el("span", { class: "note" }, "nothing recorded"));
    const list = el("ol", {});
    indices.slice(0, kind === "cause" ? CHAIN : 6).forEach((index, place) => {
      // Of a chain the nearest cause in full, of the others who it was: the rest is one click away.
      const said = kind === "cause" && place > 0 ? el("span", { class: "hidden" }, run.sentence(index)) : run.sentence(index);
      const button = el("button", { type: "button", title: run.sentence(index) }, el("b", {}, run.actor(index)), " ", said);
      button.addEventListener("click", () => this.app.moveTo(this.track, this.track.rowOf[this.column][index]));
      list.append(el("li", {}, button));
    });
    if (indices.length) box.append(list);
    if (kind === "effect" && indices.length > 6) box.append(el("span", { class: "note" }, `and ${grouped(indices.length - 6)} more`));
    return box;
  }
}

class App {
  constructor(data) {
    this.runs = data.runs.map((run) => new Run(run));
    // What moves in one run is shown in all, so that two stay comparable.
    const moving = new Set(this.runs.flatMap((run) => [...run.moving]));
    for (const run of this.runs) run.moving = moving;
    this.lanes = data.lanes;
    this.panes = [];
    this.chosen = data.pair;
    this.linked = true;
    this.search = new Search(this);
    this.scrubber = new Scrubber(this);
    this.spoken = () => this.panes.filter((pane) => pane.track === this.track).map((pane) => pane.spoken()).join(" ");
    this.panes = this.chosen.map((_, number) => new Pane(this, number));
    byId("panes").append(...this.panes.map((pane) => pane.root));
    document.body.classList.toggle("two", this.panes.length > 1);
    this.choices();
    this.setUp();
    this.keys = new Keys(this);
    let later = 0;
    addEventListener("resize", () => {
      cancelAnimationFrame(later);
      later = requestAnimationFrame(() => { this.panes.forEach((pane) => pane.sequence.measure()); this.redraw(); });
    });
  }

  // Which runs are shown, and on the phone which of the two.
  choices() {
    const tabs = byId("tabs");
    tabs.hidden = this.panes.length < 2;
    this.panes.forEach((pane, number) => {
      const button = el("button", { type: "button" }, this.runs[this.chosen[number]].title);
      button.addEventListener("click", () => this.activate(pane));
      tabs.append(button);
      if (this.runs.length > this.panes.length) {
        const select = el("select", { "aria-label": `Run shown ${number ? "right" : "left"}` });
        this.runs.forEach((run, index) => select.append(el("option", { value: index, selected: index === this.chosen[number] }, `${index + 1}: ${run.title}`)));
        select.addEventListener("change", () => { this.chosen[number] = Number(select.value); this.setUp(); });
        pane.part("which").append(select);
      }
    });
    byId("link").hidden = this.panes.length < 2;
  }

  setUp() {
    const runs = this.chosen.map((number) => this.runs[number]);
    const together = this.linked && runs.length > 1;
    const tracks = together ? Array(2).fill(Track.pair(...runs)) : runs.map((run) => Track.single(run));
    this.panes.forEach((pane, number) => {
      const kept = pane.track ? pane.last : -1;
      pane.show(tracks[number], together ? number : 0);
      if (kept >= 0 && kept < pane.run.length && !(together && number)) pane.track.at = pane.track.rowOf[pane.column][kept];
    });
    byId("tabs").querySelectorAll("button").forEach((button, number) => { button.textContent = runs[number].title; });
    byId("link").setAttribute("aria-pressed", String(this.linked));
    this.activate(this.active ?? this.panes[0]);
    this.scrubber.draw();
    this.search.tell("");
    this.redraw();
  }

  activate(pane) {
    if (this.active === pane && this.track === pane.track) return;
    this.active = pane;
    const changed = this.track !== pane.track;
    this.track = pane.track;
    this.panes.forEach((other, number) => {
      other.root.classList.toggle("active", other === pane);
      byId("tabs").children[number]?.setAttribute("aria-pressed", String(other === pane));
    });
    if (changed && this.scrubber.bins) { this.scrubber.draw(); this.search.tell(""); }
    if (this.scrubber.bins) this.redraw();
  }

  go(pane, row) { this.activate(pane); this.moveTo(pane.track, row); }

  moveTo(track, row) {
    const to = Math.max(0, Math.min(track.rows.length - 1, row));
    if (to === track.at) return;
    track.at = to;
    this.redraw();
    clearTimeout(this.later);
    this.later = setTimeout(() => { byId("live").textContent = this.spoken(); }, 120);
  }

  step(by) { this.moveTo(this.track, this.track.at + by); }

  // To the nearest cause, the first effect, or the next step of the same actor.
  jump(kind) {
    const { active: pane } = this, { run, here } = pane;
    if (here < 0) return;
    let to = -1;
    if (kind === "cause") to = run.cause(here);
    else if (kind === "effect") to = run.effects(here)[0] ?? -1;
    else {
      const by = kind === "later" ? 1 : -1;
      for (to = here + by; to >= 0 && to < run.length && run.actor(to) !== run.actor(here);) to += by;
      if (to >= run.length) to = -1;
    }
    if (to >= 0) this.moveTo(this.track, this.track.rowOf[pane.column][to]);
  }

  redraw() {
    this.panes.forEach((pane) => pane.draw());
    this.scrubber.update();
    const { here, run } = this.active;
    byId("to-cause").disabled = here < 0 || run.cause(here) < 0;
    byId("to-effect").disabled = here < 0 || !run.effects(here).length;
    byId("first").disabled = byId("back").disabled = this.track.at === 0;
    byId("last").disabled = byId("forward").disabled = this.track.at === this.track.rows.length - 1;
  }

  scrolled(pane) {
    pane.sequence.draw();
    for (const other of this.panes) {
      const box = other.sequence.box;
      if (other !== pane && other.track === pane.track && box.scrollTop !== pane.sequence.box.scrollTop) {
        box.scrollTop = pane.sequence.box.scrollTop;
      }
    }
  }
}
