// The page of two runs: one table of losses at equal cost, and their curves over each other.

const comparison = JSON.parse(document.getElementById("data").textContent);
const RUN_NAMES = comparison.runs.map((r, i) => (comparison.runs.every((o) => o.name === r.name) ? `${r.name} (${"AB"[i]})` : r.name));
const LOSS = { tick: (x) => String(Number(x.toPrecision(3))), value: loss };
let chosen = "tokens";

const better = (delta) => el("span", { class: `badge ${delta < 0 ? "ok" : "neutral"}` }, `${delta > 0 ? "+" : ""}${loss(delta)}`);

function pointsTable(axes) {
  const named = (p) => axes.find((a) => a.key === p.axis) || { name: p.axis, format: count };
  return table(`Loss in nats per token where both runs have been; the difference is ${RUN_NAMES[1]} less ${RUN_NAMES[0]}`,
    ["At equal", "Which is", "Loss", ...RUN_NAMES, "Difference"],
    comparison.points.map((p) => [named(p).name.replace("Tokens", "tokens").replace("Time", "time"), named(p).format(p.at), p.source, loss(p.a), loss(p.b), better(p.delta)]));
}

function totalsTable() {
  const [a, b] = comparison.runs, pay = (r) => money(r.currency)(r.totals.cost);
  const rows = [["State", (r) => r.state.kind], ["Final shape", (r) => (r.stages.length ? shapeText(r.stages.at(-1).shape) : NONE)],
    ["Parameters", (r) => count(r.stages.at(-1)?.parameters)], ["Stages", (r) => String(r.stages.length)], ["Tokens", (r) => count(r.totals.tokens)],
    ["Compute", (r) => flops(r.totals.flops)], ["Time", (r) => duration(r.totals.seconds)], ["Money", pay], ["Training loss", (r) => loss(r.totals.loss)]];
  return table("What each run has used and reached", ["", ...RUN_NAMES], rows.map(([name, f]) => [name, f(a), f(b)]));
}

const share = ([value, low, high]) => `${percent(value)} (${percent(low)} to ${percent(high)})`;

function tasksCard() {
  const rows = comparison.tasks.map((t) => [t.task, percent(t.chance), share(t.a), share(t.b)]);
  return rows.length ? el("section", { class: "card" }, el("h2", {}, "Tasks"), table("At the last measurement of each run, with 95 % intervals", ["Task", "Chance", ...RUN_NAMES], rows)) : "";
}

function curveChart(node, source, curveOf, axis) {
  const lines = comparison.runs.flatMap((run, i) => {
    const curve = curveOf(run), x = axisOf(run.axes, axis.key);
    return curve ? [line(x, curve, { name: RUN_NAMES[i], key: `s${i}`, dots: source !== "train" })] : [];
  });
  chart(node, { title: source === "train" ? "Training loss, moving average" : `Validation loss, ${source}`, axis, format: LOSS, log: true, height: 280, lines });
}

function draw() {
  const axes = axesFor(comparison.runs), axis = axes.find((a) => a.key === chosen) || axes[0];
  const sources = [...new Set(comparison.runs.flatMap((r) => Object.keys(r.valid)))];
  const cards = [...sources, "train"].map(() => el("section", { class: "card" }));
  document.getElementById("page").replaceChildren(
    el("div", { class: "title" }, el("h1", {}, RUN_NAMES.join(" and "))),
    el("p", { class: "muted" }, ...comparison.notes.map((n) => n + " ")),
    el("section", { class: "card" }, el("h2", {}, "At equal cost"), pointsTable(axes)),
    tasksCard(),
    el("div", {}, axisSwitch(axes, axis.key, (key) => { chosen = key; draw(); document.querySelector(".switch input:checked").focus(); })),
    el("div", { class: "grid2" }, cards),
    el("section", { class: "card" }, el("h2", {}, "The runs"), totalsTable()));
  [...sources, "train"].forEach((s, i) => curveChart(cards[i], s, (r) => (s === "train" ? r.series.loss.smooth : r.valid[s]), axis));
}

draw();
addEventListener("resize", draw);
addEventListener("scroll", tip.hide, { passive: true });
