// The trace in the page: columns of numbers that point into tables, and the state at any step.
"use strict";

// Steps between two kept states; finding the state at a step applies at most so many deltas.
const KEYFRAME = 256;

class Run {
  constructor(data) {
    this.title = data.title;
    this.header = data.header;
    this.gap = data.gap;
    this.missing = data.missing;
    this.length = data.kind.length;
    this.kinds = data.kinds;
    this.texts = data.texts;
    this.fieldTable = data.fields;
    this.deltaTable = data.deltas;
    this.kind = data.kind;
    this.text = data.text;
    this.field = data.field;
    this.delta = data.delta;
    this.number = sums(data.number);
    this.time = sums(data.time);
    this.back = data.back;
    this.hasState = data.delta.some((index) => index !== 0);
    this.moving = changing(this);
    this.interval = Math.max(KEYFRAME, data.paths);
    this.keyframes = [new Map()];
    this.indexOf = null;
    this.children = null;
  }

  name(i) { return this.kinds[this.kind[i]][0]; }
  actor(i) { return this.kinds[this.kind[i]][1]; }
  sentence(i) { return this.texts[this.text[i]]; }
  fields(i) { return this.fieldTable[this.field[i]]; }

  // The index of the event that has this number; -1 when it is not in the page.
  index(number) {
    if (this.indexOf === null) this.indexOf = new Map(this.number.map((n, i) => [n, i]));
    return this.indexOf.get(number) ?? -1;
  }

  // The number of the causing event, 0 for none.
  causeNumber(i) { return this.back[i] === 0 ? 0 : this.number[i] - this.back[i]; }

  cause(i) { return this.back[i] === 0 ? -1 : this.index(this.number[i] - this.back[i]); }

  // Earlier events, the nearest first, each the cause of the one before it.
  chain(i, limit) {
    const found = [];
    for (let at = this.cause(i); at >= 0 && found.length < limit; at = this.cause(at)) found.push(at);
    return found;
  }

  effects(i) {
    if (this.children === null) {
      this.children = new Map();
      for (let at = 0; at < this.length; at++) {
        const cause = this.cause(at);
        if (cause < 0) continue;
        const list = this.children.get(cause);
        if (list) list.push(at); else this.children.set(cause, [at]);
      }
    }
    return this.children.get(i) ?? [];
  }

  // Path -> value after event i; the map is the caller's.
  state(i) {
    if (i < 0) return new Map();
    const wanted = Math.floor((i + 1) / this.interval);
    while (this.keyframes.length <= wanted) {
      const last = this.keyframes.length - 1;
      const map = new Map(this.keyframes[last]);
      this.apply(map, last * this.interval, (last + 1) * this.interval);
      this.keyframes.push(map);
    }
    const map = new Map(this.keyframes[wanted]);
    this.apply(map, wanted * this.interval, i + 1);
    return map;
  }

  apply(map, from, to) {
    for (let at = from; at < to; at++) {
      if (this.delta[at] === 0) continue;
      for (const [path, value] of Object.entries(this.deltaTable[this.delta[at]])) {
        if (value === null) map.delete(path); else map.set(path, value);
      }
    }
  }

  // Path -> value before, of what event i changed; undefined where there was nothing.
  changes(i) {
    const changed = new Map();
    if (i < 0 || this.delta[i] === 0) return changed;
    const before = this.state(i - 1);
    for (const path of Object.keys(this.deltaTable[this.delta[i]])) changed.set(path, before.get(path));
    return changed;
  }
}

// The paths that change after they are there, as opposed to those that only tell where a run began.
function changing(run) {
  const seen = new Set(), moving = new Set();
  for (const index of run.delta) {
    if (index === 0) continue;
    for (const path of Object.keys(run.deltaTable[index])) {
      if (seen.has(path)) moving.add(path); else seen.add(path);
    }
  }
  return moving;
}

function sums(steps) {
  let total = 0;
  return steps.map((step) => (total += step));
}

// Rows that put two runs side by side: [index in a or -1, index in b or -1].
//
// Both are cut where a device raises its line. Two stretches are aligned by the longest sequence of steps of the same
// name that they share; very long ones by counting equal names.
const CELLS = 1000000;

function alignRuns(a, b) {
  const rows = [];
  const left = stretches(a), right = stretches(b);
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    const [fromA, toA] = left[at] ?? [0, 0], [fromB, toB] = right[at] ?? [0, 0];
    const pairs = (toA - fromA + 1) * (toB - fromB + 1) <= CELLS
      ? shared(a, fromA, toA, b, fromB, toB)
      : counted(a, fromA, toA, b, fromB, toB);
    let i = fromA, j = fromB;
    for (const [x, y] of [...pairs, [toA, toB]]) {
      while (i < x) rows.push([i++, -1]);
      while (j < y) rows.push([-1, j++]);
      if (i < toA && j < toB) rows.push([i++, j++]);
    }
  }
  return rows;
}

function stretches(run) {
  const starts = [0];
  for (let i = 1; i < run.length; i++) if (run.name(i) === "line_up") starts.push(i);
  return starts.map((start, at) => [start, starts[at + 1] ?? run.length]);
}

function keyOf(run, i) {
  const fields = run.fields(i);
  return `${run.name(i)} ${fields?.request ?? ""} ${fields?.level ?? ""}`;
}

function shared(a, fromA, toA, b, fromB, toB) {
  const m = toA - fromA, n = toB - fromB, width = n + 1;
  const keysA = Array.from({ length: m }, (_, i) => keyOf(a, fromA + i));
  const keysB = Array.from({ length: n }, (_, j) => keyOf(b, fromB + j));
  const best = new Uint32Array((m + 1) * width);
  for (let i = m - 1; i >= 0; i--) {
    for (let j = n - 1; j >= 0; j--) {
      best[i * width + j] = keysA[i] === keysB[j]
        ? best[(i + 1) * width + j + 1] + 1
        : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const pairs = [];
  for (let i = 0, j = 0; i < m && j < n;) {
    if (keysA[i] === keysB[j]) pairs.push([fromA + i++, fromB + j++]);
    else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i++;
    else j++;
  }
  return pairs;
}

function counted(a, fromA, toA, b, fromB, toB) {
  const places = new Map(), seen = new Map(), pairs = [];
  for (let j = fromB; j < toB; j++) {
    const key = keyOf(b, j);
    if (places.has(key)) places.get(key).push(j); else places.set(key, [j]);
  }
  let last = fromB - 1;
  for (let i = fromA; i < toA; i++) {
    const key = keyOf(a, i), nth = seen.get(key) ?? 0;
    seen.set(key, nth + 1);
    const j = places.get(key)?.[nth] ?? -1;
    if (j > last) { pairs.push([i, j]); last = j; }
  }
  return pairs;
}

// A way through one run, or through two side by side: rows, and where we are.
class Track {
  constructor(runs, rows) {
    this.runs = runs;
    this.rows = rows;
    this.at = 0;
    // Per run: row -> its last event up to there; event -> row.
    this.last = runs.map((_, column) => {
      let last = -1;
      return rows.map((row) => (last = row[column] >= 0 ? row[column] : last));
    });
    this.rowOf = runs.map((run, column) => {
      const places = new Array(run.length).fill(0);
      rows.forEach((row, r) => { if (row[column] >= 0) places[row[column]] = r; });
      return places;
    });
  }

  static single(run) { return new Track([run], Array.from({ length: run.length }, (_, i) => [i])); }

  static pair(a, b) { return new Track([a, b], alignRuns(a, b)); }
}
