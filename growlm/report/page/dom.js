// Elements without markup strings: every text of a run goes through textContent and stays text.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A value of a table whose names come from outside, where "constructor" is no more than a name. */
const own = (table, name) => (table && Object.hasOwn(table, name) ? table[name] : undefined);

/** Width in pixels inside the padding of `node`. */
function innerWidth(node) {
  const style = getComputedStyle(node);
  return node.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
}

function table(caption, heads, rows) {
  const cell = (tag, value) => {
    const right = typeof value === "string" && /^[−–$€¥£]?[\d.,–]/.test(value);
    return el(tag, { class: right && "number" }, value);
  };
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, heads.map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((v) => cell("td", v)))))));
}

const tip = {
  node: () => document.getElementById("tip"),
  show(x, y, ...children) { // x, y: client pixels that the tip must not cover
    const node = tip.node();
    node.replaceChildren(...children);
    node.hidden = false;
    const { width, height } = node.getBoundingClientRect();
    const room = document.documentElement.clientWidth;
    const left = x + 14 + width < room ? x + 14 : Math.max(4, x - 14 - width);
    node.style.left = `${left}px`;
    node.style.top = `${Math.max(4, Math.min(y - height / 2, innerHeight - height - 4))}px`;
  },
  hide: () => { tip.node().hidden = true; },
};

const tipRow = (name, value, key) =>
  el("div", { class: "row" }, el("span", { class: key && `key ${key}` }, name), el("b", {}, value));
