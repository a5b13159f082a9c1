// The state at a step: a table per part of the machine, the tree of forwarded interrupts as a tree.
const PARTS = [
  ["gic", "Physical GIC", "irq", ["line", "enabled", "state"]],
  ["irq", "Host irq descriptors", "irq", ["depth", "pending", "forwarded"]],
  ["vfio", "VFIO", "interrupt", ["masked"]],
  ["vgic", "VGIC", "irq", ["level", "pending", "active", "enabled", "queued"]],
  ["lr", "List registers", "register", ["content"]],
  ["vcpu", "vCPUs", "vcpu", ["in_guest"]],
];
const EMPTY = {
  vgic: "Every interrupt is as after reset.", lr: "All are empty.", vfio: "No interrupt of an open device.",
  vcpu: "There is none yet.",
};
// Rows of one table; more are counted, not shown.
const ROWS = 24;
const IDLE = 240;
const GIC_STATES = { I: "inactive", P: "pending", A: "active", AP: "active and pending" };

// path -> [part, row, attribute]
function place(path) {
  const pieces = path.split("."), part = pieces[0];
  if (part === "lr") return [part, pieces.slice(1).join("."), "content"];
  if (part === "rbtree" || pieces.length < 3) return [part, pieces.slice(1).join("."), ""];
  return [part, pieces.slice(1, -1).join("."), pieces[pieces.length - 1]];
}

function rowName(part, key) {
  if (part === "vfio") return key.replace(/\.(\d+)$/, " #$1");
  const pieces = key.split(".");
  if (part === "lr" && pieces.length === 3) {
    return `${pieces[0] === "0" ? "" : `vm ${pieces[0]} `}vcpu ${pieces[1]} LR${pieces[2]}`;
  }
  if ((part === "vgic" || part === "vcpu") && pieces.length === 2) return pieces[0] === "0" ? pieces[1] : `vm ${pieces[0]}: ${pieces[1]}`;
  return key;
}

function told(part, attribute, value) {
  return part === "gic" && attribute === "state" ? GIC_STATES[value] ?? shown(value) : shown(value);
}

// One change in words.
function changeText(path, before, after) {
  const [part, key, attribute] = place(path);
  const title = PARTS.find(([id]) => id === part)?.[1] ?? part;
  if (part === "rbtree") return "Tree of forwarded interrupts";
  const what = attribute === "content" || attribute === "" ? "" : ` ${attribute.replace("_", " ")}`;
  return `${title} ${rowName(part, key)}${what}: ${told(part, attribute, before)} → ${told(part, attribute, after)}`;
}

function drawState(box, run, index, open) {
  if (!run.hasState) {
    box.replaceChildren(el("p", { class: "note" }, "This trace was recorded without states."));
    return;
  }
  const state = run.state(index), changes = run.changes(index);
  const gone = [...changes.keys()].filter((path) => !state.has(path)).map((path) => [path, null]);
  const tables = new Map(PARTS.map(([part]) => [part, new Map()])), trees = [];
  for (const [path, value] of [...state, ...gone]) {
    const [part, key, attribute] = place(path);
    if (part === "rbtree") { trees.push([path, key, value]); continue; }
    if (!tables.has(part)) tables.set(part, new Map());
    const rows = tables.get(part);
    if (!rows.has(key)) rows.set(key, new Map());
    rows.get(key).set(attribute, [path, value]);
  }
  // Every part has its place, also while it is empty: a card that is not where it was is hard to follow.
  const card = (part) => {
    const [, title, key, columns] = PARTS.find(([id]) => id === part) ?? [part, part, "of", []];
    return tableCard(part, title, key, columns, tables.get(part), changes, run, open);
  };
  if (!trees.length) trees.push(["rbtree", "0", null]);
  const first = PARTS.slice(0, -1).map(([part]) => part), last = [...tables.keys()].slice(PARTS.length - 1);
  box.replaceChildren(
    ...first.map(card),
    ...trees.map(([path, key, tree]) => treeCard(path, key, tree, changes)),
    ...last.map(card),
  );
  // Of a tree that is wider than its place, begin with the root.
  for (const wide of box.querySelectorAll("[data-middle]")) wide.scrollLeft = wide.dataset.middle - wide.clientWidth / 2;
}

function numeric(a, b) { return a.localeCompare(b, "en", { numeric: true }); }

function tableCard(part, title, key, preferred, rows, changes, run, open) {
  const present = new Set([...rows.values()].flatMap((row) => [...row.keys()]));
  const columns = [...preferred.filter((name) => present.has(name)), ...[...present].filter((n) => !preferred.includes(n)).sort()];
  const changedRow = ([, row]) => [...row.values()].some(([path]) => changes.has(path));
  const sorted = [...rows].sort(([a], [b]) => numeric(a, b));
  const moves = ([, row]) => [...row.values()].some(([path]) => run.moving.has(path));
  const moving = sorted.filter(moves);
  const busy = moving.length ? moving : sorted, idle = moving.length ? sorted.filter((row) => !moves(row)) : [];
  const chosen = busy.length <= ROWS ? busy : busy.filter((row, at) => at < ROWS - 4 || changedRow(row)).slice(0, 2 * ROWS);
  const changed = sorted.some(changedRow);
  const table = (some) => el(
    "div", { class: "scroll" },
    el(
      "table", {},
      part === "lr" ? null : el("thead", {}, el("tr", {}, ...[key, ...columns].map((name) => el("th", { scope: "col" }, name.replace("_", " ") || "value")))),
      el("tbody", {}, ...some.map(([name, row]) => el(
        "tr", {},
        el("th", { scope: "row" }, rowName(part, name)),
        ...columns.map((column) => cell(part, column, row.get(column), changes)),
      ))),
    ),
  );
  const more = busy.length - chosen.length;
  const card = el(
    "section", { class: changed ? "card touched" : "card", "data-part": part },
    el("h4", {}, title, changed ? el("span", { class: "flag" }, "changed") : null),
    rows.size ? table(chosen) : el("p", { class: "note" }, EMPTY[part] ?? "nothing"),
    more > 0 ? el("p", { class: "more" }, `and ${grouped(more)} more`) : null,
  );
  if (idle.length) {
    const details = el("details", { open: open.has(part) }, el("summary", {}, `${grouped(idle.length)} that never ${idle.length === 1 ? "changes" : "change"}`));
    const fillIn = () => {
      if (details.childElementCount > 1) return;
      details.append(table(idle.slice(0, IDLE)));
      if (idle.length > IDLE) details.append(el("p", { class: "more" }, `and ${grouped(idle.length - IDLE)} more`));
    };
    if (open.has(part)) fillIn();
    details.addEventListener("toggle", () => {
      if (details.open) { open.add(part); fillIn(); } else open.delete(part);
    });
    card.append(details);
  }
  return card;
}

function cell(part, column, found, changes) {
  if (!found) return el("td", { class: "none" }, "–");
  const [path, value] = found;
  const text = value === null ? "gone" : told(part, column, value);
  const kind = value === true ? "yes" : value === false ? "no" : "";
  if (!changes.has(path)) return el("td", { class: kind }, text);
  const before = changes.get(path);
  return el(
    "td", { class: `changed ${kind}`.trim() },
    before === undefined ? el("span", { class: "hidden" }, "new: ") : el("del", {}, told(part, column, before)),
    before === undefined ? null : el("span", { class: "to" }, " → "),
    el("ins", {}, text),
  );
}

// A tree is drawn down to this level: 31 nodes, and what hangs below them as a number.
const LEVELS = 5;

function treeCard(path, key, tree, changes) {
  const title = key === "0" ? "Forwarded interrupts" : `Forwarded interrupts, vm ${key}`;
  const changed = changes.has(path);
  const card = el(
    "section", { class: changed ? "card touched" : "card", "data-part": "rbtree" },
    el("h4", {}, title, changed ? el("span", { class: "flag" }, "changed") : null),
  );
  if (!tree || typeof tree !== "object") {
    card.append(el("p", { class: "note" }, tree ? shown(tree) : "The tree is empty."));
    return card;
  }
  const known = new Set();
  collect(changes.get(path), (node) => known.add(node.virtual));
  const nodes = [];
  let depth = 0;
  const visit = (node, level, parent) => {
    if (!node || typeof node !== "object") return;
    const mine = { node, level, parent, x: 0, below: 0 }, lowest = level === LEVELS - 1;
    if (lowest) [node.left, node.right].forEach((child) => collect(child, () => mine.below++));
    else visit(node.left, level + 1, mine);
    mine.x = nodes.length;
    nodes.push(mine);
    depth = Math.max(depth, level);
    if (!lowest) visit(node.right, level + 1, mine);
  };
  visit(tree, 0, null);
  const total = nodes.reduce((sum, item) => sum + 1 + item.below, 0);
  const wide = 50, high = 52, r = 19;
  const x = (item) => 30 + item.x * wide, y = (item) => 24 + item.level * high;
  const edges = nodes.filter((item) => item.parent).map((item) => `M${x(item.parent)} ${y(item.parent)}L${x(item)} ${y(item)}`);
  card.classList.toggle("wide", nodes.length > 5);
  const width = 60 + (nodes.length - 1) * wide, height = 48 + depth * high + (nodes.some((item) => item.below) ? 18 : 0);
  const words = `Red-black tree, ${total} ${total === 1 ? "node" : "nodes"}: ` +
    nodes.slice(0, 20).map(({ node }) => `${shown(node.virtual)} to physical ${shown(node.physical)}, ${shown(node.color)}`).join("; ");
  const scrolls = nodes.length > 5 ? { tabindex: 0, role: "region", "aria-label": title } : {};
  card.append(el("div", { class: "scroll", "data-middle": x(nodes.find((item) => !item.parent)), ...scrolls }, svg(
    "svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words, class: "tree" },
    svg("path", { d: edges.join(""), class: "edge" }),
    ...nodes.map((item) => svg(
      "g", { class: `${item.node.color === "red" ? "red" : "black"}${changed && !known.has(item.node.virtual) ? " new" : ""}` },
      svg("circle", { cx: x(item), cy: y(item), r }),
      svg("text", { x: x(item), y: y(item) + 4 }, shown(item.node.virtual)),
      item.below ? svg("text", { x: x(item), y: y(item) + r + 14, class: "below" }, `+${item.below}`) : null,
      svg("title", {}, `guest ${shown(item.node.virtual)} is physical ${shown(item.node.physical)}, ${shown(item.node.color)}`),
    )),
  )));
  const pairs = nodes.slice(0, 6).map(({ node }) => `${shown(node.virtual)} → ${shown(node.physical)}`).join(", ");
  const legend = nodes.some(({ node }) => node.color === "red") ? " Filled: a black node; outlined: a red one." : "";
  card.append(el("p", { class: "more" }, `guest → physical: ${pairs}${total > 6 ? ` and ${total - 6} more` : ""}.${legend}`));
  return card;
}

function collect(node, visit) {
  if (!node || typeof node !== "object") return;
  visit(node);
  collect(node.left, visit);
  collect(node.right, visit);
}
