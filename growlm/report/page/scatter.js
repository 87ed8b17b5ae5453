// Scores against cost, as inline SVG: points with their ranges on a logarithmic axis, a line through the stages of a run.

const POINT = 4.5, LABEL = 14;

/**
 * Draw into `host`: `points` [{name, label, key, x, y, low, high, width, hollow}] where `width` is half the range of x and `low`, `high` that of y;
 * `paths` [{key, points[]}] join some of them; `chance` is a dashed line. `format` {tick, value}.
 */
function scatter(host, { title, points, paths, chance, format, height = 340 }) {
  const width = Math.max(240, innerWidth(host)), narrow = width < 620;
  if (!points.length) return host.replaceChildren(el("p", { class: "muted" }, "No model here has both a cost and a score."));
  const box = { left: 46, right: width - (narrow ? 16 : 118), top: 14, bottom: height - 40 };
  const [left, right] = costRange(points), [low, high] = scoreRange(points, chance);
  const X = scale(left, right, box.left, box.right, true), Y = scale(low, high, box.bottom, box.top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
  root.append(
    ...niceTicks(low, high, 5).map((t) => svg("g", {}, svg("line", { class: "grid", x1: box.left, x2: box.right, y1: Y(t), y2: Y(t) }),
      svg("text", { x: box.left - 7, y: Y(t) + 3.5, "text-anchor": "end" }, format.tick(t)))),
    ...decades(left, right, Math.floor(width / 64)).map((t) => svg("g", {}, svg("line", { class: "grid", x1: X(t), x2: X(t), y1: box.top, y2: box.bottom }),
      svg("text", { x: X(t), y: box.bottom + 15, "text-anchor": "middle" }, power(t)))),
    svg("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, "training cost, zettaFLOPs (10²¹)"));
  if (isNumber(chance)) root.append(svg("line", { class: "line train ahead", x1: box.left, x2: box.right, y1: Y(chance), y2: Y(chance) }),
    svg("text", { x: box.left + 5, y: Y(chance) - 5 }, "chance"));
  root.append(...paths.map((p) => svg("polyline", { class: `line ${p.key}`, points: p.points.map((q) => `${X(q.x)},${Y(q.y)}`).join(" ") })),
    ...points.map((p) => pointMark(p, X, Y, format)), ...pointLabels(points, X, Y, box, narrow));
  host.replaceChildren(el("h3", {}, title), root,
    narrow ? el("ol", { class: "note muted points" }, points.map((p) => el("li", {}, el("span", {}, `${p.name}: ${format.value(p.y)} at ${costText(p.x)}`)))) : "");
}

const costText = (x) => (x < SMALL ? compute(x) : `${tiny(x)} zettaFLOPs`);
const SMALL = 1e-3;

/** Zetta-FLOPs; much less than one in a unit of its own. */
const compute = (x) => (x < SMALL ? flops(x * 1e21) : tiny(x));

function costRange(points) {
  const low = Math.min(...points.map((p) => p.x - (p.width || 0))), high = Math.max(...points.map((p) => p.x + (p.width || 0)));
  const room = Math.max(1.6, (high / low) ** 0.06);
  return [low / room, high * room];
}

function scoreRange(points, chance) {
  const values = points.flatMap((p) => [p.y, p.low, p.high]).concat(chance).filter(isNumber);
  const low = Math.min(...values), high = Math.max(...values), room = 0.08 * (high - low) || 0.05;
  return [Math.max(0, low - room), Math.min(1, high + room)];
}

/** Powers of ten, as many as fit; 1, 2, 5 where less than two decades are shown. */
function decades(low, high, wanted) {
  if (high / low < 100) return logTicks(low, high, 5);
  const first = Math.ceil(Math.log10(low)), last = Math.floor(Math.log10(high)), step = Math.ceil((last - first + 1) / Math.max(2, wanted));
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => 10 ** (last - i * step));
}

function power(x) {
  const digits = Math.round(Math.log10(x));
  if (x >= 0.01 && x < 1e4) return String(Number(x.toPrecision(2)));
  return `10${[...String(digits)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}`;
}

function pointMark(p, X, Y, format) {
  const show = (e) => tip.show(e.clientX, e.clientY, el("div", { class: "row head" }, p.name), tipRow("score", format.value(p.y)),
    isNumber(p.low) ? tipRow("95 % interval", `${format.value(p.low)} to ${format.value(p.high)}`) : "", tipRow(p.derived ? "cost, derived" : "cost", costText(p.x)),
    p.width ? tipRow("its range", `± ${tiny(p.width)}`) : "");
  return svg("g", { class: `point ${p.key}`, onpointermove: show, onpointerleave: tip.hide },
    isNumber(p.low) ? svg("line", { x1: X(p.x), x2: X(p.x), y1: Y(p.low), y2: Y(p.high) }) : null,
    p.width ? svg("line", { x1: X(p.x - p.width), x2: X(p.x + p.width), y1: Y(p.y), y2: Y(p.y) }) : null,
    svg("circle", { class: p.hollow ? "hollow" : "", cx: X(p.x), cy: Y(p.y), r: POINT }), svg("circle", { class: "target", cx: X(p.x), cy: Y(p.y), r: 14 }));
}

/** A name (its number where it is narrow) beside each point, pushed down (at the bottom up) until none covers another; a hair leads to what was moved. */
function pointLabels(points, X, Y, box, narrow) {
  const long = (p) => (narrow ? String(points.indexOf(p) + 1) : p.label.length > 24 ? p.label.slice(0, 23) + "…" : p.label);
  const placed = [];
  const labels = points.map((p) => ({ p, text: long(p), x: X(p.x) + POINT + 4, y: Y(p.y) + (p.run ? -5 : 4), size: 6.4 * long(p).length })).sort((a, b) => a.y - b.y);
  for (const l of labels) {
    if (l.x + l.size > box.right + 116) l.x = X(l.p.x) - POINT - 4 - l.size;
    l.y = Math.min(l.y, box.bottom - 5);
    const step = l.y > box.bottom - 3 * LABEL ? -LABEL : LABEL;
    for (let moved = true; moved;) {
      const hit = placed.find((o) => Math.abs(o.y - l.y) < LABEL && l.x < o.x + o.size && o.x < l.x + l.size);
      if ((moved = Boolean(hit))) l.y = hit.y + step;
    }
    placed.push(l);
  }
  return labels.map((l) => svg("g", {}, Math.abs(l.y - 4 - Y(l.p.y)) > 8 ? svg("line", { class: "leader", x1: X(l.p.x), y1: Y(l.p.y), x2: l.x - 2, y2: l.y - 4 }) : null,
    svg("text", { class: `end ${l.p.key}`, x: l.x, y: l.y }, l.text)));
}
