// The model as a picture, stage by stage: what was there, and what grew.
//
//   trunk (residual stream)     width ~ d_model
//   cells on the trunk          one per head
//   bar under the cells         width ~ ffn
//   rows                        layers
//   foot                        embedding: width ~ d_model, height ~ log of the vocabulary

/** Draw `stages` (begun, then planned) into `host` along one token axis. */
function shapePicture(host, stages) {
  const column = Math.max(104, Math.floor(innerWidth(host) / stages.length)), width = column * stages.length;
  const most = (axis) => Math.max(...stages.map((s) => s.shape[axis] || 1));
  const unit = (column - 34) / Math.max(most("d_model"), most("d_ff"));
  const row = Math.max(3, Math.min(24, 250 / most("n_layers")));
  const foot = (s) => 8 + 2 * Math.max(0, Math.log2((s.shape.vocab_size || 256) / 256));
  const ground = 26 + row * most("n_layers") + Math.max(...stages.map(foot));
  const ribbon = ground + 44, height = ribbon + 46;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "The shape of the model in every stage" });
  const label = (s) => (s.parameters ? count(s.parameters) + (column < 140 ? "" : " parameters") : "planned");
  const total = stages.reduce((sum, s) => sum + (s.tokens || 0), 0) || 1;
  let from = 0;
  stages.forEach((stage, i) => {
    const middle = column * (i + 0.5), to = from + ((stage.tokens || 0) / total) * (width - 20);
    root.append(
      ribbonOf(stage, 10 + from, 10 + to, middle, Math.max(stage.shape.d_model * unit, 8), ground, ribbon),
      drawStage(stage, stages[i - 1], middle, ground, unit, row, foot(stage), label(stage)));
    from = to;
  });
  root.append(svg("text", { class: "axis", x: 10, y: height - 4 }, "0"),
    svg("text", { class: "axis", x: width - 10, y: height - 4, "text-anchor": "end" }, `${count(total)} tokens`));
  host.replaceChildren(root);
}

/** From the foot of the picture down to the tokens that the stage trains on. */
function ribbonOf(stage, from, to, middle, foot, ground, y) {
  const share = stage.planned ? 0 : Math.min(1, stage.trained / (stage.tokens || 1));
  const bend = (ground + 6 + y) / 2, [a, b] = [middle - foot / 2, middle + foot / 2];
  return svg("g", { class: stage.planned ? "planned" : "" },
    svg("path", { class: "flow", d: `M${a} ${ground + 6}C${a} ${bend} ${from} ${bend} ${from} ${y}H${to - 2}C${to - 2} ${bend} ${b} ${bend} ${b} ${ground + 6}Z` }),
    svg("rect", { class: "soil", x: from, y, width: Math.max(1, to - from - 2), height: 14, rx: 3 }),
    svg("rect", { class: "trained", x: from, y, width: Math.max(0, (to - from - 2) * share), height: 14, rx: 3 }),
    to - from > 6.2 * stage.name.length + 8 ? svg("text", { class: "axis", x: (from + to) / 2, y: y + 28, "text-anchor": "middle" }, stage.name) : null);
}

function drawStage(stage, before, middle, ground, unit, row, foot, label) {
  const { shape } = stage, old = before ? before.shape : shape;
  const fresh = newLayers(stage, before);
  const part = (name, size, oldSize, y, height) => grownBar(name, middle, size * unit, Math.min(size, oldSize) * unit, y, height);
  const tall = ground - foot - row * shape.n_layers;
  const group = svg("g", { class: stage.planned ? "planned" : "" },
    svg("title", {}, `${stage.name}: ${AXIS_NAMES.map(([axis, name]) => `${name} ${whole(shape[axis])}`).join(", ")}`),
    grownBar("trunk", middle, shape.d_model * unit, Math.min(shape.d_model, old.d_model) * unit, tall - 7, row * shape.n_layers + 7),
    grownBar("embedding", middle, shape.d_model * unit, Math.min(shape.d_model, old.d_model) * unit, ground - foot, foot),
    shape.vocab_size > old.vocab_size ? svg("rect", { class: "new", x: middle - (shape.d_model * unit) / 2, y: ground - 3, width: shape.d_model * unit, height: 3 }) : null);
  for (let layer = 0; layer < shape.n_layers; layer++) {
    const y = ground - foot - row * (layer + 1), gap = row > 8 ? 1.5 : 0.6, all = fresh.has(layer);
    const half = (row - 2 * gap) / 2;
    fill(group, {}, [part("ffn", shape.d_ff, all ? 0 : old.d_ff, y + gap + half, half - 0.4),
      heads(shape, all ? 0 : old.n_heads, middle, unit, y + gap, half)]);
  }
  group.append(svg("text", { class: "name", x: middle, y: tall - 13, "text-anchor": "middle" },
    label));
  return group;
}

/** A bar whose old part sits in the middle and whose new part was added on both sides. */
function grownBar(name, middle, size, oldSize, y, height) {
  const bar = (key, w) => svg("rect", { class: key, x: middle - w / 2, y, width: Math.max(0, w), height, rx: Math.min(2, height / 3) });
  return [oldSize < size - 0.01 ? bar(`${name} new`, size) : null, oldSize > 0 ? bar(name, oldSize) : null];
}

function heads(shape, oldHeads, middle, unit, y, height) {
  const cell = (shape.d_model * unit) / shape.n_heads, left = middle - (shape.d_model * unit) / 2;
  const gap = Math.min(1.5, cell * 0.15);
  return Array.from({ length: shape.n_heads }, (_, h) => svg("rect",
    { class: h < oldHeads ? "head" : "head new", x: left + h * cell + gap / 2, y, width: cell - gap, height: height - 0.4, rx: Math.min(1.5, cell / 4) }));
}

/** Layers of a stage that its growth added: the certificate knows which, else the uppermost. */
function newLayers(stage, before) {
  if (!before) return new Set();
  if (stage.newLayers) return new Set(stage.newLayers);
  const added = stage.shape.n_layers - before.shape.n_layers;
  return new Set(Array.from({ length: Math.max(0, added) }, (_, i) => before.shape.n_layers + i));
}
