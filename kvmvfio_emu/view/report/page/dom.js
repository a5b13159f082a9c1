// Making elements. Text goes in as text nodes only: nothing from a trace is ever parsed as markup.
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child === null || child === undefined) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

function el(name, attributes, ...children) { return fill(document.createElement(name), attributes, children); }

function svg(name, attributes, ...children) { return fill(document.createElementNS(SVG, name), attributes, children); }

function byId(id) { return document.getElementById(id); }

function grouped(number) { return String(number).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f"); }

function shown(value) {
  if (value === true) return "yes";
  if (value === false) return "no";
  if (value === undefined || value === null) return "none";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
