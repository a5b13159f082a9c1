// The sequence of steps, a lane per actor, time running down. Only the rows in sight are in the document.
class Sequence {
  constructor(pane, lanes) {
    this.pane = pane;
    this.lanes = lanes;
    this.box = pane.root.querySelector(".steps");
    this.head = pane.root.querySelector(".lanehead");
    this.space = el("div", { class: "space" });
    this.graph = svg("svg", { class: "graph", "aria-hidden": "true" });
    this.space.append(this.graph);
    this.box.append(this.space);
    this.rows = new Map();
    this.box.addEventListener("scroll", () => pane.app.scrolled(pane), { passive: true });
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest("[data-row]");
      if (row) pane.app.go(pane, Number(row.dataset.row));
    });
  }

  measure() {
    const narrow = matchMedia("(max-width: 40rem)").matches;
    this.high = narrow ? 48 : 30;
    const dense = this.lanes.length > 8;
    this.wide = narrow ? (dense ? 11 : 13) : (dense ? 19 : 22);
    this.left = narrow ? 12 : 16;
    const width = this.left + this.wide * this.lanes.length;
    this.box.style.setProperty("--lanes", `${width}px`);
    this.box.style.setProperty("--row", `${this.high}px`);
    this.drawHead();
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.space.style.height = `${this.pane.track.rows.length * this.high}px`;
  }

  drawHead() {
    const height = 66;
    this.head.replaceChildren(...this.lanes.map((actor, lane) => svg(
      "text",
      { transform: `translate(${this.x(lane) + 3} ${height - 8}) rotate(-58)`, "data-lane": lane },
      actor,
    )));
    this.head.setAttribute("height", height);
  }

  x(lane) { return this.left + lane * this.wide; }

  y(row) { return row * this.high + this.high / 2; }

  // Bring the current row into sight, in the middle when it was not.
  reveal() {
    const { at } = this.pane.track, top = at * this.high, box = this.box;
    const margin = Math.min(2 * this.high, box.clientHeight / 4);
    if (top < box.scrollTop + margin || top + this.high > box.scrollTop + box.clientHeight - margin) {
      const far = top < box.scrollTop - box.clientHeight || top > box.scrollTop + 2 * box.clientHeight;
      if (far) box.scrollTop = top - box.clientHeight / 2;
      else if (top < box.scrollTop + margin) box.scrollTop = top - margin;
      else box.scrollTop = top + this.high - box.clientHeight + margin;
    }
  }

  draw() {
    const { track, column } = this.pane, box = this.box;
    const first = Math.max(0, Math.floor(box.scrollTop / this.high) - 4);
    const last = Math.min(track.rows.length, Math.ceil((box.scrollTop + box.clientHeight) / this.high) + 4);
    for (const [row, node] of this.rows) {
      if (row < first || row >= last) { node.remove(); this.rows.delete(row); }
    }
    const { chain, effects } = this.pane.causality();
    for (let row = first; row < last; row++) {
      const index = track.rows[row][column];
      let node = this.rows.get(row);
      if (!node) {
        node = this.makeRow(row, index);
        this.rows.set(row, node);
        this.space.append(node);
      }
      const current = row === track.at;
      node.classList.toggle("current", current);
      node.classList.toggle("related", !current && (chain.has(index) || effects.has(index)));
      node.classList.toggle("match", index >= 0 && this.pane.app.search.hit(this.pane.run, index));
      if (index >= 0) node.setAttribute("aria-selected", current ? "true" : "false");
    }
    const active = this.rows.get(track.at);
    if (active && track.rows[track.at][column] >= 0) box.setAttribute("aria-activedescendant", active.id);
    else box.removeAttribute("aria-activedescendant");
    this.drawGraph(first, last, chain, effects);
  }

  makeRow(row, index) {
    const { run, track, column } = this.pane;
    const id = `${this.pane.id}-row-${row}`;
    let node;
    if (index < 0) {
      node = el("div", { class: "row blank", id, "data-row": row, "aria-hidden": "true" }, el("span", {}, "no such step"));
    } else {
      const lonely = track.runs.length > 1 && track.rows[row][1 - column] < 0;
      node = el(
        "div",
        {
          class: lonely ? "row lonely" : "row", id, "data-row": row, role: "option",
          "aria-posinset": index + 1, "aria-setsize": run.length,
        },
        el("span", { class: "actor" }, run.actor(index)),
        el("span", { class: "what" }, run.sentence(index)),
        lonely ? el("span", { class: "only" }, "only here") : null,
        el("span", { class: "time" }, grouped(run.time[index])),
      );
      if (index === run.gap) node.classList.add("aftergap");
    }
    node.style.top = `${row * this.high}px`;
    return node;
  }

  drawGraph(first, last, chain, effects) {
    const { run, track, column } = this.pane;
    const top = first * this.high, height = (last - first) * this.high;
    const width = this.left + this.wide * this.lanes.length;
    const lane = (index) => this.lanes.indexOf(run.actor(index));
    const rowOf = track.rowOf[column];
    // Far ends are drawn as if just out of sight: coordinates stay small.
    const y = (index) => Math.max(-200, Math.min(height + 200, this.y(rowOf[index]) - top));
    const parts = [];
    const lines = this.lanes.map((_, at) => `M${this.x(at)} 0V${height}`).join("");
    parts.push(svg("path", { d: lines, class: "lane" }));
    const at = track.rows[track.at][column];
    const faint = [], dots = [], rings = [];
    const path = (from, to) => {
      const x1 = this.x(lane(from)), y1 = y(from), x2 = this.x(lane(to)), y2 = y(to), bend = Math.min(26, (y2 - y1) / 2);
      return `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`;
    };
    for (let row = first; row < last; row++) {
      const index = track.rows[row][column];
      if (index < 0) continue;
      const cause = run.cause(index);
      if (cause >= 0) faint.push(path(cause, index));
      const [x, middle] = [this.x(lane(index)), y(index)];
      if (index === at) continue;
      (chain.has(index) || effects.has(index) ? rings : dots).push(svg("circle", { cx: x, cy: middle, r: 4 }));
    }
    parts.push(svg("path", { d: faint.join(""), class: "faint" }));
    if (at >= 0) {
      let to = at;
      for (const from of chain) { parts.push(arrow(path(from, to), "because")); to = from; }
      for (const effect of effects) parts.push(arrow(path(at, effect), "effect"));
    }
    parts.push(svg("g", { class: "dots" }, ...dots), svg("g", { class: "rings" }, ...rings));
    if (at >= 0) {
      parts.push(svg("circle", { cx: this.x(lane(at)), cy: y(at), r: 7, class: "here" }));
      this.head.querySelectorAll("text").forEach((text, number) => text.classList.toggle("on", number === lane(at)));
    }
    this.graph.replaceChildren(...parts);
    this.graph.setAttribute("width", width);
    this.graph.setAttribute("height", height);
    this.graph.style.top = `${top}px`;
  }
}

function arrow(d, kind) {
  return svg("path", { d, class: kind, "marker-end": `url(#arrow-${kind})` });
}
