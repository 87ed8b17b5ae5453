// Pieces that the report and the comparison share: axes, stages, growths, shapes.

const AXIS_NAMES = [["d_model", "d_model"], ["n_heads", "heads"], ["n_kv_heads", "kv heads"], ["d_ff", "ffn"], ["n_layers", "layers"], ["vocab_size", "vocab"]];

const shapeText = (s) => `${whole(s.n_layers)} × ${whole(s.d_model)}, ${whole(s.n_heads)} heads, ffn ${whole(s.d_ff)}`;

/** The x-axes a person can choose: tokens, FLOPs, time and, where a price was given, money. */
function axesFor(runs) {
  const all = [
    { key: "tokens", name: "Tokens", format: (x) => count(x), ticks: niceTicks },
    { key: "flops", name: "FLOPs", format: flops, ticks: niceTicks },
    { key: "seconds", name: "Time", format: duration, ticks: timeTicks },
    { key: "cost", name: "Money", format: money(runs[0].currency), ticks: niceTicks },
  ];
  return all.filter((a) => runs.every((r) => r.axes[a.key]))
    .map((a) => ({ ...a, high: Math.max(...runs.map((r) => r.axes[a.key].at(-1))) }));
}

function axisSwitch(axes, chosen, choose) {
  return el("fieldset", { class: "switch" }, el("legend", {}, "Across"), axes.map((a) => el("label", {},
    el("input", { type: "radio", name: "axis", value: a.key, checked: a.key === chosen, onchange: () => choose(a.key) }),
    el("span", {}, a.name))));
}

const line = (x, [steps, values], rest) => ({ x: steps.map(x), y: values, ...rest });

const chips = (changes) => el("span", { class: "chips" }, changes.length
  ? changes.map((c) => el("span", { class: "chip" }, `${c.name} `, el("b", {}, `${whole(c.from)} → ${whole(c.to)}`)))
  : "no axis");

/** How a growth turned out: [class, words]. Exact by declaration and measurement, or not exact by design. */
function verdict(certificate) {
  const { exact, max_dlogit: moved, tolerance } = certificate;
  if (!exact) return ["neutral", "not exact by design"];
  return moved !== null && moved <= tolerance ? ["ok", "exact"] : ["bad", "declared exact, is not"];
}

function symmetryText(symmetry) {
  const parts = Object.entries(symmetry).map(([axis, s]) => `${axis} ${whole(s.distinct)} of ${whole(s.units)} distinct`);
  return parts.join(", ") || "no copies";
}

function growthTip(growth) {
  const c = growth.certificate;
  return [el("div", { class: "row head" }, `Grew after step ${whole(growth.step)}: ${verdict(c)[1]}`), chips(growth.changes),
    tipRow("operator, depth", `${growth.operator}, ${growth.depth}`), tipRow("max |Δlogit|", tiny(c.max_dlogit)),
    tipRow("Δloss", tiny(c.dloss)), tipRow("gradient error", tiny(c.gradient_error)), tipRow("copies", symmetryText(c.symmetry))];
}
