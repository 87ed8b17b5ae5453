// Several objectives in one run: a curve and a count for each, and how often held-out signals are right.

/** The key of a colour for the i-th of some curves. */
const colour = (i) => `s${(i + 6) % 6}`;

/** Whether a source is running text, whose loss compares with the training loss of language. */
function isText(run, source) {
  const kind = own(run.data?.sources, source)?.kind;
  return kind ? kind === "text" : !own(run.accuracy, source);
}

/** The colour of a source of examples, after those of the objectives. */
const exampleColour = (run, source) => colour(Object.keys(run.objectives).length + Object.keys(run.valid).filter((s) => !isText(run, s)).indexOf(source));

function objectiveChart(node, run, axis) {
  const names = Object.keys(run.objectives);
  if (!names.length) return node.replaceChildren();
  const { x, stages } = frameOf(run, axis);
  const trained = names.flatMap((name, i) => { const { raw, smooth } = run.objectives[name];
    return [line(x, raw, { name: "raw", key: colour(i), faint: true }), line(x, smooth, { name, key: colour(i) })]; });
  const held = Object.keys(run.valid).filter((s) => !isText(run, s))
    .map((s) => line(x, run.valid[s], { name: s, key: exampleColour(run, s), dots: true }));
  chart(node, { title: "Loss by objective, nats per learnt token", axis, format: VALUE.loss, log: true, height: 280, stages: unnamed(stages), lines: [...trained, ...held] });
  node.append(el("p", { class: "note muted" }, held.length ? "Dots: held-out examples. " : "", "Language learns every token, teacher the signal only, instruction what the recipe says. Whoever knows only that a signal comes pays ln 2 ≈ 0.693."));
}

function accuracyChart(node, run, axis) {
  const sources = Object.entries(run.accuracy);
  if (!sources.length) return node.replaceChildren();
  const { x, stages } = frameOf(run, axis);
  const lines = sources.map(([source, curve]) => line(x, curve, { name: source, key: exampleColour(run, source), dots: true }));
  const chance = { name: "chance", key: "train", ahead: true, x: [0, axis.high], y: [0.5, 0.5] };
  chart(node, { title: "Accuracy on held-out propositions", axis, format: VALUE.share, height: 230, stages: unnamed(stages), lines: [...lines, chance] });
}

const unnamed = (stages) => stages.map((s) => ({ ...s, name: "" }));

function drawn(run) {
  const objectives = Object.entries(run.objectives), total = objectives.reduce((sum, [, o]) => sum + o.tokens, 0);
  const sources = Object.entries(run.epochs);
  const now = (curve) => (curve && curve[1].length ? curve[1].at(-1) : null);
  return [
    ...(objectives.length ? [el("h2", {}, "Objectives"), table("Tokens that each objective has drawn so far, and its loss now (moving average)", ["Objective", "Tokens", "Share", "Loss"],
      objectives.map(([name, o], i) => [el("span", { class: `key ${colour(i)}` }, name), count(o.tokens), percent(total ? o.tokens / total : null), loss(now(o.smooth))]))] : []),
    ...(sources.length ? [el("h2", {}, "Sources"), table("How often each source has been gone through, and what is held out of it", ["Source", "Kind", "Training tokens", "Epochs", "Held-out loss", "Accuracy"],
      sources.map(([name, epochs]) => { const source = own(run.data?.sources, name);
        return [name, source ? KINDS[source.kind] : NONE, count(source?.splits.train?.tokens), fixed(2)(epochs), loss(now(own(run.valid, name))), percent(now(own(run.accuracy, name)))]; }))] : []),
  ];
}
