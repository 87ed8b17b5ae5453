// One line chart as inline SVG.

let clips = 0;

/**
 * Draw into `host`: `lines` [{name, key, x[], y[], faint, dots}] where key is a colour class, `axis` {high, format,
 * ticks}, `stages` [{x0, x1, name}] as bands, `growths` [{x, tip()}] as marks with a certificate, `flags` [{x, key,
 * text}] on the axis, `bands` [{x[], low[], high[], key}] behind the lines. A faint line gives no label and its outliers do not set the scale.
 */
function chart(host, { title, lines, axis, format, log = false, height = 190, stages = [], growths = [], flags = [], bands = [] }) {
  const width = Math.max(240, innerWidth(host)), narrow = width < 560;
  const drawn = lines.filter((l) => l.x.length), bold = drawn.filter((l) => !l.faint);
  const box = { left: 50, right: width - (bold.length > 1 && !narrow ? 128 : 54), top: growths.length ? 30 : 12, bottom: height - 24 };
  const [low, high] = verticalRange([...drawn, ...bands.flatMap((b) => [{ y: b.low }, { y: b.high }])], log);
  const X = scale(0, axis.high || 1, box.left, box.right), Y = scale(low, high, box.bottom, box.top, log);
  const clip = `clip${++clips}`;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
  root.append(
    svg("clipPath", { id: clip }, svg("rect", { x: box.left, y: box.top - 2, width: box.right - box.left, height: box.bottom - box.top + 4 })),
    ...stages.map((s, i) => stageBand(s, i, X, box)),
    ...(log ? logTicks : niceTicks)(low, high, height > 240 ? 6 : 4).map((t) => svg("g", {},
      svg("line", { class: "grid", x1: box.left, x2: box.right, y1: Y(t), y2: Y(t) }),
      svg("text", { x: box.left - 7, y: Y(t) + 3.5, "text-anchor": "end" }, format.tick(t)))),
    ...axis.ticks(0, axis.high || 1, narrow ? 3 : Math.min(7, Math.floor(width / 110))).map((t) =>
      svg("text", { x: X(t), y: height - 6, "text-anchor": "middle" }, axis.format(t))),
    svg("g", { "clip-path": `url(#${clip})` }, bands.map((b) => area(b, X, Y)), drawn.map((l) => curve(l, X, Y))),
    ...endLabels(bold, X, Y, box, format, narrow));
  root.append(...flags.map((f) => flag(f, X, box)));
  hover(root, bold, X, axis, format, box, width);
  root.append(...growths.map((g) => growthMark(g, X, box)));
  const legend = el("div", { class: "legend" }, bold.map((l) => el("span", { class: `key ${l.key}` }, l.name)));
  host.replaceChildren(el("h3", {}, title), bold.length > 1 ? legend : "", drawn.length ? root : el("p", { class: "muted" }, "Nothing recorded yet."));
}

function verticalRange(lines, log) {
  let low = Infinity, high = -Infinity;
  for (const line of lines) {
    const values = line.y.filter((v) => !log || v > 0);
    const sorted = line.faint ? [...values].sort((a, b) => a - b) : values;
    const cut = line.faint ? Math.floor(sorted.length * 0.005) : 0;
    for (const v of line.faint ? sorted.slice(cut, sorted.length - cut) : sorted) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
  }
  if (low === Infinity) return [0.1, 1];
  if (low === high) return [low > 0 ? low * 0.9 : low - 1, high > 0 ? high * 1.1 : high + 1];
  if (log) return [low / (high / low) ** 0.04, high * (high / low) ** 0.04];
  return [low >= 0 && low < 0.6 * high ? 0 : low - 0.05 * (high - low), high + 0.06 * (high - low)];
}

function curve(line, X, Y) {
  const points = line.x.map((x, i) => `${X(x).toFixed(1)},${Y(line.y[i]).toFixed(1)}`);
  const dots = line.dots && line.x.length <= 60
    ? line.x.map((x, i) => svg("circle", { class: `dot ${line.key}`, cx: X(x), cy: Y(line.y[i]), r: 2.2 })) : [];
  return [svg("polyline", { class: `line ${line.key}${line.faint ? " faint" : ""}${line.ahead ? " ahead" : ""}`, points: points.join(" ") }), dots];
}

function area(band, X, Y) {
  const points = (y, order) => order.map((i) => `${X(band.x[i]).toFixed(1)},${Y(y[i]).toFixed(1)}`);
  const there = [...band.x.keys()];
  return svg("polygon", { class: `area ${band.key}`, points: [...points(band.low, there), ...points(band.high, there.reverse())].join(" ") });
}

function stageBand(stage, index, X, box) {
  const [a, b] = [X(stage.x0), X(stage.x1)];
  return svg("g", {},
    svg("rect", { class: index % 2 ? "band odd" : "band", x: a, y: box.top, width: Math.max(0, b - a), height: box.bottom - box.top }),
    b - a > 7 * stage.name.length + 10 ? svg("text", { class: "stage", x: a + 7, y: box.bottom - 7 }, stage.name) : null);
}

/** Labels at the right end of the curves, pushed apart so that none covers another. */
function endLabels(lines, X, Y, box, format, narrow) {
  const labels = lines.map((l) => ({ line: l, y: Y(l.y.at(-1)), x: X(l.x.at(-1)) })).sort((a, b) => a.y - b.y);
  for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + 14);
  const over = labels.length ? labels.at(-1).y - box.bottom : 0;
  return labels.map(({ line, x, y }) => {
    const short = line.name.length > 11 ? line.name.slice(0, 10) + "…" : line.name;
    const name = lines.length > 1 && !narrow ? `${short} ` : "";
    return svg("text", { class: `end ${line.key}`, x: x + 6, y: y - Math.max(0, over) + 4 }, name, svg("tspan", { class: "strong" }, format.value(line.y.at(-1))));
  });
}

function growthMark(growth, X, box) {
  const x = X(growth.x), at = (e) => tip.show(e.clientX ?? 0, e.clientY ?? 0, ...growth.tip());
  const focus = (e) => { const r = e.target.getBoundingClientRect(); tip.show(r.right, r.top + 20, ...growth.tip()); };
  return svg("g", { class: `growth ${growth.ok ? "" : "broken"}`, tabindex: "0", role: "button", "aria-label": growth.label,
      onpointermove: at, onpointerleave: tip.hide, onfocus: focus, onblur: tip.hide },
    svg("rect", { class: "target", x: x - 11, y: 0, width: 22, height: box.bottom }),
    svg("line", { x1: x, x2: x, y1: 20, y2: box.bottom }),
    svg("circle", { cx: x, cy: 12, r: 9 }),
    svg("path", { d: `M${x} ${7.5}v9M${x - 3.5} ${11}l3.5-3.8l3.5 3.8` }));
}

function flag(f, X, box) {
  const x = X(f.x), y = box.bottom;
  return svg("path", { class: `flag ${f.key}`, d: `M${x} ${y - 7}l4.5 7h-9z` }, svg("title", {}, f.text));
}

function hover(root, lines, X, axis, format, box, width) {
  const hair = svg("line", { class: "hair", y1: box.top, y2: box.bottom, visibility: "hidden" });
  const move = (e) => {
    const pixel = (e.clientX - root.getBoundingClientRect().left) * (width / root.clientWidth || 1);
    if (pixel < box.left || pixel > box.right) return leave();
    const x = ((pixel - box.left) / (box.right - box.left)) * (axis.high || 1);
    hair.setAttribute("x1", X(x)); hair.setAttribute("x2", X(x)); hair.setAttribute("visibility", "visible");
    tip.show(e.clientX, e.clientY, el("div", { class: "row head" }, axis.format(x)),
      ...lines.map((l) => tipRow(l.name, format.value(l.y[nearest(l.x, x)]), l.key)));
  };
  const leave = () => { hair.setAttribute("visibility", "hidden"); tip.hide(); };
  const area = svg("rect", { class: "target", x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top,
    onpointermove: move, onpointerleave: leave });
  root.append(hair, area);
}

function nearest(sorted, x) {
  const i = firstAtLeast(sorted, x);
  if (i === 0) return 0;
  return i === sorted.length || x - sorted[i - 1] < sorted[i] - x ? i - 1 : i;
}
