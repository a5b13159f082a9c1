// The state at a step: a table per part of the machine, the tree of forwarded interrupts as a tree.
const PARTS = [
  ["gic", "Physical GIC", "irq", ["line", "enabled", "state"]],
  ["irq", "Host irq descriptors", "irq", ["depth", "pending", "forwarded"]],
  ["vfio", "VFIO", "interrupt", ["masked"]],
  ["vgic", "VGIC", "irq", ["level", "pending", "active", "enabled", "queued"]],
  ["lr", "List registers", "register", ["content"]],
];
// Rows of one table; more are counted, not shown.
const ROWS = 24;
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
  if (part === "vgic" && pieces.length === 2) return pieces[0] === "0" ? pieces[1] : `vm ${pieces[0]}: ${pieces[1]}`;
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
  const what = attribute === "content" || attribute === "" ? "" : ` ${attribute}`;
  return `${title} ${rowName(part, key)}${what}: ${told(part, attribute, before)} → ${told(part, attribute, after)}`;
}

function drawState(box, run, index) {
  const state = run.state(index), changes = run.changes(index);
  const paths = new Map([...state, ...[...changes.keys()].filter((path) => !state.has(path)).map((path) => [path, null])]);
  const tables = new Map(), trees = [];
  for (const [path, value] of paths) {
    const [part, key, attribute] = place(path);
    if (part === "rbtree") { trees.push([path, key, value]); continue; }
    if (!tables.has(part)) tables.set(part, new Map());
    const rows = tables.get(part);
    if (!rows.has(key)) rows.set(key, new Map());
    rows.get(key).set(attribute, [path, value]);
  }
  const cards = [];
  for (const [part, title, key, columns] of PARTS) {
    if (tables.has(part)) cards.push(tableCard(part, title, key, columns, tables.get(part), changes));
    tables.delete(part);
  }
  for (const [path, key, tree] of trees) cards.push(treeCard(path, key, tree, changes));
  for (const [part, rows] of tables) cards.push(tableCard(part, part, "of", [], rows, changes));
  if (!run.hasState) cards.push(el("p", { class: "note" }, "This trace was recorded without states."));
  else if (!cards.length) cards.push(el("p", { class: "note" }, "No state recorded up to here."));
  box.replaceChildren(...cards);
}

function numeric(a, b) { return a.localeCompare(b, "en", { numeric: true }); }

function tableCard(part, title, key, preferred, rows, changes) {
  const present = new Set([...rows.values()].flatMap((row) => [...row.keys()]));
  const columns = [...preferred.filter((name) => present.has(name)), ...[...present].filter((n) => !preferred.includes(n)).sort()];
  const changedRow = (row) => [...row.values()].some(([path]) => changes.has(path));
  const sorted = [...rows].sort(([a], [b]) => numeric(a, b));
  const chosen = sorted.length <= ROWS ? sorted : sorted.filter(([, row], at) => at < ROWS - 4 || changedRow(row)).slice(0, 2 * ROWS);
  const changed = sorted.some(([, row]) => changedRow(row));
  const body = chosen.map(([name, row]) => el(
    "tr", {},
    el("th", { scope: "row" }, rowName(part, name)),
    ...columns.map((column) => cell(part, column, row.get(column), changes)),
  ));
  const more = sorted.length - chosen.length;
  return el(
    "section", { class: changed ? "card touched" : "card", "data-part": part },
    el("h4", {}, title, changed ? el("span", { class: "flag" }, "changed") : null),
    el(
      "div", { class: "scroll" },
      el(
        "table", {},
        part === "lr" ? null : el("thead", {}, el("tr", {}, el("th", { scope: "col" }, key), ...columns.map((name) => el("th", { scope: "col" }, name || "value")))),
        el("tbody", {}, ...body),
      ),
    ),
    more > 0 ? el("p", { class: "more" }, `and ${grouped(more)} more that did not change`) : null,
  );
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

// Nodes of one picture of a tree.
const NODES = 127;

function treeCard(path, key, tree, changes) {
  const title = key === "0" ? "Forwarded interrupts" : `Forwarded interrupts, vm ${key}`;
  const changed = changes.has(path);
  const card = el(
    "section", { class: changed ? "card touched" : "card", "data-part": "rbtree" },
    el("h4", {}, title, changed ? el("span", { class: "flag" }, "changed") : null),
  );
  if (!tree || typeof tree !== "object") {
    card.append(el("p", { class: "note" }, "The tree is empty: nothing is forwarded."));
    return card;
  }
  const known = new Set();
  collect(changes.get(path), (node) => known.add(node.virtual));
  const nodes = [];
  let depth = 0, total = 0;
  const visit = (node, level, parent) => {
    if (!node || typeof node !== "object") return;
    total++;
    const mine = { node, level, parent, x: 0 };
    if (nodes.length >= NODES || level > 12) { collect(node.left, () => total++); collect(node.right, () => total++); return; }
    visit(node.left, level + 1, mine);
    mine.x = nodes.length;
    nodes.push(mine);
    depth = Math.max(depth, level);
    visit(node.right, level + 1, mine);
  };
  visit(tree, 0, null);
  const wide = 58, high = 54, r = 19;
  const x = (item) => 32 + item.x * wide, y = (item) => 26 + item.level * high;
  const edges = nodes.filter((item) => item.parent).map((item) => `M${x(item.parent)} ${y(item.parent)}L${x(item)} ${y(item)}`);
  const width = 64 + (nodes.length - 1) * wide, height = 52 + depth * high;
  const words = `Red-black tree, ${total} ${total === 1 ? "node" : "nodes"}: ` +
    nodes.slice(0, 20).map(({ node }) => `${shown(node.virtual)} to physical ${shown(node.physical)}, ${shown(node.color)}`).join("; ");
  card.append(el("div", { class: "scroll" }, svg(
    "svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words, class: "tree" },
    svg("path", { d: edges.join(""), class: "edge" }),
    ...nodes.map((item) => svg(
      "g", { class: `${item.node.color === "red" ? "red" : "black"}${changed && !known.has(item.node.virtual) ? " new" : ""}` },
      svg("circle", { cx: x(item), cy: y(item), r }),
      svg("text", { x: x(item), y: y(item) + 4 }, shown(item.node.virtual)),
      svg("title", {}, `guest ${shown(item.node.virtual)} is physical ${shown(item.node.physical)}, ${shown(item.node.color)}`),
    )),
  )));
  const pairs = nodes.slice(0, 6).map(({ node }) => `${shown(node.virtual)} → ${shown(node.physical)}`).join(", ");
  card.append(el("p", { class: "more" }, `guest → physical: ${pairs}${total > 6 ? ` and ${total - 6} more` : ""}. Double ring: red node.`));
  return card;
}

function collect(node, visit) {
  if (!node || typeof node !== "object") return;
  visit(node);
  collect(node.left, visit);
  collect(node.right, visit);
}
