// The page of one run. `render` draws every section from the data; the live page calls it again and again.

const VALUE = { loss: { tick: (x) => String(Number(x.toPrecision(3))), value: loss }, small: { tick: (x) => (x < 1e-5 && x > 0 ? tiny(x) : String(Number(x.toPrecision(2)))), value: tiny },
  speed: { tick: (x) => count(x), value: (x) => count(x) }, share: { tick: (x) => (100 * x).toFixed(0) + " %", value: percent } };
const STATES = { running: "Running", done: "Done", preempted: "Stopped, saved", failed: "Failed", silent: "Silent" };
const sections = new Map();
let chosen = "tokens";

/** Redraw a section only if what it shows has changed, and not under the pointer of a person reading it. */
function section(id, shown, draw) {
  const key = JSON.stringify(shown);
  const node = document.getElementById(id);
  if (sections.get(id) === key || (sections.has(id) && node.matches(":hover") && node.dataset.calm)) return;
  sections.set(id, key);
  draw(node);
}

function render(run) {
  document.title = `${STATES[run.state.kind] || run.state.kind}: ${run.name}`;
  const axes = axesFor([run]), axis = axes.find((a) => a.key === chosen) || axes[0];
  const size = document.documentElement.clientWidth;
  const frame = [axis.key, axis.high, size, run.growths, run.stages.length];
  section("head", [run.state, run.totals, run.stages, run.planned], (n) => header(n, run));
  section("tiles", [run.totals, run.valid, run.growths, run.forecast], (n) => n.replaceChildren(...tiles(run)));
  section("switch", axes.map((a) => a.key), (n) => n.replaceChildren(axisSwitch(axes, axis.key, (key) => { chosen = key; render(run); })));
  section("loss", [frame, run.series.loss, run.valid, run.forecast], (n) => lossChart(n, run, axis));
  section("objectives", [frame, run.objectives, run.valid, run.data], (n) => objectiveChart(n, run, axis));
  section("accuracy", [frame, run.accuracy, run.data, Object.keys(run.objectives)], (n) => accuracyChart(n, run, axis));
  section("tasks", [frame, run.tasks], (n) => taskCharts(n, run, axis));
  section("drawn", [run.objectives, run.epochs, run.valid, run.accuracy, run.data], (n) => n.replaceChildren(...drawn(run)));
  section("shape", [size, run.stages, run.planned], (n) => shapes(n, run));
  section("growths", run.growths, (n) => n.replaceChildren(...growthTable(run)));
  for (const [key, title, format, log] of SMALL) section(`chart-${key}`, [frame, run.series[key]], (n) => smallChart(n, run, axis, key, title, format, log));
  section("data", run.data, (n) => n.replaceChildren(...dataCard(run)));
  section("samples", run.samples, (n) => n.replaceChildren(...samples(run)));
  section("events", run.events, (n) => n.replaceChildren(...events(run)));
  section("facts", [run.stages, run.machine, run.totals.last_save], (n) => n.replaceChildren(...facts(run)));
}

const SMALL = [["lr", "Learning rate", VALUE.small, false], ["grad_norm", "Gradient norm", VALUE.small, true],
  ["tokens_per_second", "Tokens per second", VALUE.speed, false], ["mfu", "MFU, share of the measured matmul peak", VALUE.share, false]];

function header(node, run) {
  const { totals: t, state } = run, whole_ = t.total_tokens || 0;
  const all = [...run.stages, ...run.planned.map((p) => ({ ...p, trained: 0 }))];
  const bar = el("div", { class: "progress", role: "progressbar", "aria-valuenow": whole_ ? Math.round((100 * t.tokens) / whole_) : 0, "aria-label": "tokens trained" },
    all.map((s) => { const done = el("i"), part = el("span", { title: s.name }, done);
      part.style.flexGrow = s.tokens || 1; done.style.width = `${100 * Math.min(1, s.trained / (s.tokens || 1))}%`; return part; }));
  const ago = state.kind === "running" || state.kind === "silent" ? `, last record ${duration(Math.round(state.age))} ago` : "";
  node.replaceChildren(
    el("div", { class: "title" }, el("h1", {}, run.name), el("span", { class: `state ${state.kind}`, id: "state" }, STATES[state.kind] || state.kind)),
    el("p", { class: "muted" }, `Step ${whole(t.step)} of ${whole(t.total_steps)}, ${count(t.tokens)} of ${count(t.total_tokens)} tokens`,
      run.stages.length ? `, stage ${run.stages.length} of ${all.length} (${run.stages.at(-1).name})` : "", ago, "."), bar);
}

function tile(label, value, note, key = "") {
  return el("div", { class: "tile" }, el("span", { class: `label ${key && "key " + key}` }, label), el("strong", {}, value), el("span", { class: "muted" }, note));
}

function tiles(run) {
  const { totals: t } = run, pay = money(run.currency), over = run.state.kind === "done";
  const sources = Object.keys(run.valid).filter((s) => isText(run, s));
  const moved = (s) => { const v = run.valid[s][1]; return v.length > 1 ? `${fixed(2)(v.at(-1) - v[0])} since the first` : "first measurement"; };
  const worst = Math.max(...run.growths.map((g) => g.certificate.max_dlogit ?? NaN));
  const verdicts = run.growths.map((g) => verdict(g.certificate)[0]);
  const grown = verdicts.includes("bad") ? "one is not as declared" : verdicts.every((v) => v === "ok") ? `all exact, max |Δlogit| ${tiny(worst)}` : "not all exact, by design";
  const resumed = !t.resumes ? "never interrupted" : `${t.resumes} ${t.resumes === 1 ? "resume" : "resumes"}, `
    + (t.differing ? "not bit-identical" : t.verified ? "bit-identical" : "not yet verified");
  return [
    tile("Training loss", loss(t.loss), "nats per token", "train"),
    run.forecast ? tile("Predicted final loss", loss(run.forecast.loss), `${loss(run.forecast.low)} to ${loss(run.forecast.high)} (90 %), end of ${run.stages.at(-1).name}`) : null,
    ...sources.slice(0, 4).map((s, i) => tile(`Validation, ${s}`, loss(run.valid[s][1].at(-1)), moved(s), `s${i % 6}`)),
    ...Object.entries(run.accuracy).slice(0, 2).map(([s, curve]) => tile(`Accuracy, ${s}`, percent(curve[1].at(-1)), "held-out propositions; chance 50 %")),
    tile("Time", duration(t.seconds), over ? "of training" : t.seconds_to_go === null ? "to go: not known yet" : `about ${duration(t.seconds_to_go)} to go`),
    run.price_per_hour !== null ? tile("Money", pay(t.cost), (over ? `at ${pay(run.price_per_hour)} per hour` : `about ${pay(t.cost_to_go)} to go`)
      + (run.max_cost !== null ? `, at most ${pay(run.max_cost)}` : "")) : null,
    tile("Compute", flops(t.flops), `${count(t.tokens_per_second)} tokens/s, MFU ${percent(t.mfu)}`),
    tile("Growth", run.growths.length ? `${run.growths.length} ${run.growths.length === 1 ? "time" : "times"}` : "not yet", run.growths.length ? grown : "one shape so far"),
    tile("Safety", `${whole(t.saves)} ${t.saves === 1 ? "save" : "saves"}`, resumed + (t.skipped ? `, ${t.skipped} skipped` : "")),
  ].filter(Boolean);
}

function frameOf(run, axis) {
  const x = axisOf(run.axes, axis.key), last = run.totals.step;
  const stages = run.stages.map((s, i) => ({ name: s.name, x0: x(s.step), x1: x(run.stages[i + 1]?.step ?? last) }));
  const growths = run.growths.map((g) => ({ x: x(g.step), ok: verdict(g.certificate)[0] !== "bad", label: `Growth after step ${g.step}`, tip: () => growthTip(g) }));
  return { x, stages, growths };
}

/** The forecast on an axis: its line, its band and where it ends; null without one or where the pace is not known. */
function outlook(run, axis, x) {
  const f = run.forecast, pace = f && f.pace[axis.key];
  if (!pace) return null;
  const at = f.path.step.map((step) => (step <= f.now ? x(step) : x(f.now) + (step - f.now) * pace));
  return { high: Math.max(axis.high, at.at(-1)), band: { x: at, low: f.path.low, high: f.path.high, key: "train" },
    line: { x: at, y: f.path.loss, name: "forecast", key: "train", ahead: true } };
}

function lossChart(node, run, axis) {
  const { x, stages, growths } = frameOf(run, axis);
  const valid = Object.entries(run.valid).filter(([source]) => isText(run, source)).map(([source, curve], i) => line(x, curve, { name: source, key: `s${i % 6}`, dots: true }));
  const flags = [...run.skipped.map((s) => ({ x: x(s), key: "skip", text: `Skipped step ${s}` })), ...run.resumes.map((s) => ({ x: x(s), key: "resume", text: `Resumed from step ${s}` }))];
  const ahead = outlook(run, axis, x);
  if (ahead && stages.length) stages.at(-1).x1 = ahead.high;
  chart(node, { title: "Loss, nats per token", axis: ahead ? { ...axis, high: ahead.high } : axis, format: VALUE.loss, log: true, height: 360, stages, growths, flags,
    bands: ahead ? [ahead.band] : [],
    lines: [line(x, run.series.loss.raw, { name: "raw", key: "train", faint: true }), line(x, run.series.loss.smooth, { name: "train", key: "train" }), ...valid, ...(ahead ? [ahead.line] : [])] });
  node.append(el("p", { class: "note muted" }, el("span", { class: "sign up" }, "growth (its certificate on hover)"), run.resumes.length ? el("span", { class: "sign resume" }, "resume") : "",
    run.skipped.length ? el("span", { class: "sign skip" }, "skipped step") : "", ahead ? el("span", {}, "Dashed: the forecast of the training loss to the end of the stage, with its 90 % band.") : "", "Faint: every step; bold: moving average. FLOPs are the model's: no recomputation, attention not halved for causality."));
}

function smallChart(node, run, axis, key, title, format, log) {
  const { x, stages } = frameOf(run, axis), { raw, smooth } = run.series[key];
  chart(node, { title, axis, format, log, stages: stages.map((s) => ({ ...s, name: "" })),
    lines: [line(x, raw, { name: "raw", key: "train", faint: true }), line(x, smooth, { name: title.split(",")[0], key: "train" })] });
}

function shapes(node, run) {
  const picture = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Shape of the model" });
  const begun = run.stages.map((s) => ({ ...s, newLayers: run.growths.find((g) => g.stage === s.index)?.certificate.new_layers }));
  const stages = [...begun, ...run.planned.map((p) => ({ ...p, planned: true, trained: 0 }))].filter((s) => s.shape.d_model && s.shape.n_layers);
  const key = (name, text) => el("span", { class: `swatch ${name}` }, text);
  node.replaceChildren(el("h2", {}, "The model as it grows"),
    el("p", { class: "muted keys" }, key("head", "heads"), key("ffn", "ffn"), key("trunk", "d_model"), key("embedding", "embedding"), key("new", "new in this stage")), picture);
  if (stages.length) shapePicture(picture, stages);
}

function growthTable(run) {
  if (!run.growths.length) return [];
  const rows = run.growths.map((g) => { const c = g.certificate, [key, words] = verdict(c); return [whole(g.step), chips(g.changes), `${g.operator}, ${g.depth}`,
    el("span", { class: `badge ${key}` }, words), tiny(c.max_dlogit), tiny(c.dloss), symmetryText(c.symmetry), tiny(c.gradient_error)]; });
  return [el("h2", {}, "Growth certificates"), table("Old and new model on the same held-out batch, before training goes on",
    ["After step", "Grew", "Operator, depth", "Verdict", "max |Δlogit|", "Δloss", "Copies", "Gradient error"], rows)];
}

function samples(run) {
  if (!run.samples.length) return [];
  const tokens = axisOf(run.axes, "tokens");
  const text = (prompt, t) => [el("b", {}, prompt), t.startsWith(prompt) ? t.slice(prompt.length) : t];
  return [el("h2", {}, "Samples over time"), ...run.samples.map((s) => el("div", { class: "samples scroll", tabindex: "0", role: "region", "aria-label": s.prompt },
    s.texts.map((t) => el("figure", {}, el("figcaption", {}, `step ${whole(t.step)}, ${count(tokens(t.step))} tokens`), el("blockquote", {}, text(s.prompt, t.text))))))];
}

function events(run) {
  return [el("h2", {}, "What happened"), el("ol", { class: "events" }, run.events.map((e) => el("li", { class: e.level },
    el("time", {}, clock(e.time)), el("span", { class: "muted" }, e.step === null ? "" : `step ${whole(e.step)}`), el("span", {}, e.text))))];
}

function facts(run) {
  const m = run.machine, sources = Object.keys(run.valid), save = run.totals.last_save;
  const rows = run.stages.map((s) => [s.name, shapeText(s.shape), count(s.parameters), `${count(s.trained)} of ${count(s.tokens)}`, whole(s.seq_len), whole(s.batch_size),
    loss(s.loss), ...sources.map((source) => loss(s.valid[source])), count(s.tokens_per_second)]);
  const list = [["Machine", `${m.device}, ${m.precision}, ${whole(m.threads)} threads`], ["Measured matmul peak", isNumber(m.peak_tflops) ? `${tiny(m.peak_tflops)} TFLOP/s` : NONE],
    ["Versions", `GrowLM ${m.version}, torch ${m.torch}`], ["Command", m.command || NONE], ["Memory", bytes(run.totals.memory_bytes)],
    ["Last save", save ? `step ${whole(save.step)}, ${bytes(save.bytes)} in ${duration(save.seconds)}` : "none yet"], ["Starts", whole(run.totals.starts)]];
  return [el("h2", {}, "Stages"), table("Loss in nats per token at the end of the stage (training: moving average)",
    ["Stage", "Shape", "Parameters", "Tokens", "Context", "Batch", "Loss", ...sources.map((s) => `Valid, ${s}`), "Tokens/s"], rows),
    el("h2", {}, "Run"), el("dl", {}, list.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))))];
}

function build() {
  const card = (id, calm) => el("section", { id, class: "card", "data-calm": calm });
  document.getElementById("page").replaceChildren(el("header", { id: "head" }), el("div", { id: "tiles" }), el("div", { id: "switch" }),
    card("loss", true), card("objectives", true), card("accuracy", true), card("tasks", true), card("drawn"), card("shape"), card("growths"), el("div", { class: "grid2" }, SMALL.map(([key]) => card(`chart-${key}`, true))),
    card("data"), card("samples"), card("events"), card("facts"));
}
