// The page of evaluations: a table and a plot for each group of tasks, and perplexity against context length.

const found = JSON.parse(document.getElementById("data").textContent);
const SHARE = { tick: (x) => (100 * x).toFixed(0), value: (x) => (isNumber(x) ? (100 * x).toFixed(1) : NONE) };
const PERPLEXITY = { tick: (x) => String(Number(x.toPrecision(3))), value: fixed(2) };
const chosenColumn = new Map();

/** The colour of a model of ours: one for each run or model. */
const families = [...new Set(found.models.map((m) => m.run || m.name))];
const keyOf = (row) => (row.ours ? colour(families.indexOf(row.run || row.name)) : "train");
const colour = (i) => `s${(i + 6) % 6}`;
const cost = (row) => (row.zettaflops ? `${row.derived ? "≈ " : ""}${compute(row.zettaflops)}${row.half_width ? ` ± ${tiny(row.half_width)}` : ""}` : NONE);
const scrolled = (label, child) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, child);

function headOf(column) {
  const facts = [column.items === null ? "items differ" : `${whole(column.items)} items`, column.average ? null : column.shots === null ? "shots differ" : `${column.shots}-shot`];
  return el("th", { scope: "col" }, el("b", {}, column.task), el("span", {}, column.metric), el("span", {}, facts.filter(Boolean).join(", ")));
}

function cellOf(cell, column) {
  if (!cell) return el("td", { class: "number muted" }, NONE);
  if (!isNumber(cell.low)) return el("td", { class: "number" }, SHARE.value(cell.value));
  const own_ = [column.items === null ? `${whole(cell.items)} items` : null, column.shots === null && !column.average ? `${cell.shots}-shot` : null].filter(Boolean);
  return el("td", { class: "number" }, el("b", {}, SHARE.value(cell.value)), cell.marks.length ? el("sup", {}, cell.marks.join(", ")) : "",
    el("span", {}, `${SHARE.value(cell.low)}–${SHARE.value(cell.high)}`), own_.length ? el("span", {}, own_.join(", ")) : "");
}

/** The rows of a group: the stages of a run under its name, then the literature. */
function rowsOf(group) {
  const rows = [];
  let run = null, literature = false;
  const cells = (row) => [el("td", { class: "number" }, cost(row)), group.columns.map((c) => cellOf(own(row.cells, c.key), c))];
  const span = { scope: "rowgroup", colspan: group.columns.length + 2 };
  for (const row of group.rows) {
    if (row.ours && row.run && row.run !== run) rows.push(el("tr", { class: "part" }, el("th", span, el("span", { class: `key ${keyOf(row)}` }, row.run), ", stage by stage")));
    if (!row.ours && !literature) rows.push(el("tr", { class: "part" }, el("th", span, "Published, arXiv:2309.03852")));
    run = row.ours ? row.run : null;
    literature = !row.ours;
    const name = !row.ours ? row.name : row.run ? [row.stage, row.tokens ? el("span", {}, `${count(row.tokens)} tokens`) : ""] : el("span", { class: `key ${keyOf(row)}` }, row.name);
    rows.push(el("tr", { class: row.ours ? (row.run ? "inner" : "") : "inner published" }, el("th", { scope: "row" }, name), cells(row)));
  }
  return rows;
}

function groupTable(group) {
  const chance = group.columns.some((c) => isNumber(c.chance))
    ? el("tr", { class: "chance" }, el("th", { scope: "row" }, "chance"), el("td", {}), group.columns.map((c) => el("td", { class: "number" }, isNumber(c.chance) ? SHARE.value(c.chance) : NONE))) : "";
  return scrolled(group.title, el("table", { class: "scores" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Model"), el("th", { scope: "col" }, el("b", {}, "Cost"), el("span", {}, "zettaFLOPs or as said")), group.columns.map(headOf))),
    el("tbody", {}, chance, rowsOf(group))));
}

/** A group of so many columns that they are better read as rows, folded away; without the literature, which has none of them. */
function longTable(group) {
  const models = group.rows.filter((r) => r.ours);
  const rows = group.columns.map((c) => el("tr", {}, el("th", { scope: "row" }, c.task, el("span", {}, [c.metric, c.items === null ? null : `${whole(c.items)} items`].filter(Boolean).join(", "))),
    el("td", { class: "number muted" }, isNumber(c.chance) ? SHARE.value(c.chance) : NONE), models.map((m) => cellOf(own(m.cells, c.key), c))));
  return scrolled(group.title, el("table", { class: "scores" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Task"), el("th", { scope: "col" }, "Chance"), models.map((m) => el("th", { scope: "col" }, el("b", {}, m.name))))),
    el("tbody", {}, rows)));
}

function groupPlot(host, group) {
  const key = chosenColumn.get(group.name) ?? plottedKey(group);
  const column = group.columns.find((c) => c.key === key);
  const points = group.rows.filter((r) => r.zettaflops > 0 && own(r.cells, key)).map((r) => { const cell = own(r.cells, key);
    return { name: r.name, label: r.stage ? r.stage : r.name, key: keyOf(r), x: r.zettaflops, width: r.half_width, derived: r.derived, hollow: !r.ours, y: cell.value, low: cell.low, high: cell.high, run: r.run }; });
  const runs = [...new Set(points.map((p) => p.run).filter(Boolean))];
  const stages = points.filter((p) => p.hollow && p.name.startsWith("FLM-101B at "));
  const paths = [...runs.map((run) => points.filter((p) => p.run === run)), stages].filter((p) => p.length > 1).map((p) => ({ key: p[0].key, points: p }));
  scatter(host, { title: `${column.task}, ${column.metric}: score against cost`, points, paths, chance: column.chance, format: SHARE });
}

const notesOf = (group) => [group.notes.length ? el("ol", { class: "note muted" }, group.notes.map((n) => el("li", {}, n))) : "",
  group.published.length ? el("p", { class: "note muted" }, group.published.map((n) => el("span", {}, n))) : ""];
const MANY = 12;

function groupCard(group) {
  if (group.columns.length > MANY) {
    const fold = el("details", {}, el("summary", {}, `${group.title}: ${whole(group.columns.length)} scores`), longTable(group), notesOf(group));
    return { card: el("section", { class: "card" }, fold), draw: () => {} };
  }
  const card = el("section", { class: "card" }, el("h2", {}, group.title), groupTable(group), notesOf(group));
  if (group.rows.filter((r) => r.zettaflops > 0).length < 2) return { card, draw: () => {} };
  const plot = el("div", {});
  const select = el("select", { onchange: (e) => { chosenColumn.set(group.name, e.target.value); groupPlot(plot, group); } },
    group.columns.map((c) => el("option", { value: c.key, selected: c.key === chosenColumn.get(group.name) }, `${c.task}, ${c.metric}`)));
  card.append(el("label", { class: "choose" }, "Plotted: ", select), plot);
  return { card, draw: () => { groupPlot(plot, group); select.value = chosenColumn.get(group.name) ?? plottedKey(group); } };
}

/** The column that is plotted before a person chooses: the first with published values. */
const plottedKey = (group) => (group.columns.find((c) => group.rows.some((r) => !r.ours && own(r.cells, c.key))) || group.columns[0]).key;

function contextCard() {
  if (!found.contexts.length) return { card: "", draw: () => {} };
  const host = el("div", {}), trained = [...new Set(found.contexts.map((c) => c.trained))];
  const rows = found.contexts.map((c, i) => [el("span", { class: `key ${colour(i)}` }, c.name), c.positions || NONE, whole(c.trained),
    ...lengthsOf().map((l) => { const at = c.by_length.end.indexOf(l); return at < 0 ? NONE : `${PERPLEXITY.value(c.by_length.value[at])} (${PERPLEXITY.value(c.by_length.low[at])}–${PERPLEXITY.value(c.by_length.high[at])})`; })]);
  const card = el("section", { class: "card" }, el("h2", {}, "Perplexity against context length"), host,
    el("p", { class: "note muted" }, `Held-out text (${[...new Set(found.contexts.map((c) => `${c.source}, ${whole(c.windows)} windows`))].join("; ")}). Shaded: the length that was trained on, ${trained.map(whole).join(", ")} tokens. Bands: 95 % intervals over the windows.`),
    table("Perplexity of the first tokens of each window, with its 95 % interval", ["Model", "Positions", "Trained on", ...lengthsOf().map((l) => `first ${whole(l)}`)], rows));
  return { card, draw: () => contextChart(host, trained) };
}

const lengthsOf = () => [...new Set(found.contexts.flatMap((c) => c.by_length.end))].sort((a, b) => a - b);

function contextChart(host, trained) {
  const high = Math.max(...found.contexts.flatMap((c) => c.by_position.end));
  const axis = { high, format: whole, ticks: niceTicks };
  const lines = found.contexts.map((c, i) => ({ name: c.name, key: colour(i), x: c.by_position.end, y: c.by_position.value }));
  const bands = found.contexts.map((c, i) => ({ key: colour(i), x: c.by_position.end, low: c.by_position.low, high: c.by_position.high }));
  const stages = [{ name: "", x0: 0, x1: 0 }, { name: "trained", x0: 0, x1: trained[0] ?? 0 }];
  chart(host, { title: "Perplexity by position in the context", axis, format: PERPLEXITY, log: true, height: 320, stages, lines, bands });
}

function modelsCard() {
  const rows = found.models.map((m) => [m.name, count(m.parameters), count(m.tokens), m.zettaflops ? compute(m.zettaflops) : NONE, m.source]);
  return el("section", { class: "card" }, el("h2", {}, "Models"), table("What was evaluated", ["Model", "Parameters", "Tokens", "Cost, zettaFLOPs or as said", "Source"], rows));
}

const aboutCard = () => el("section", { class: "card" }, el("h2", {}, "How to read this"), el("ul", { class: "note muted about" }, [
  "Scores are per cent; under each its 95 % interval over the items (bootstrap). A score whose interval holds the chance level has shown nothing.",
  "Published rows are as printed, without intervals. Their items and prompts are not public for the IQ tasks, so compare with care.",
  "Cost is training compute in zettaFLOPs (10²¹), ours without recomputation and attention not halved; published ± is from without to with recomputation. Of bilingual models a table counts the share of its language; ours is all of it. ≈: not printed, derived.",
].map((text) => el("li", {}, text))));

function drawAll() {
  const cards = [...found.groups.map(groupCard), contextCard()];
  document.getElementById("page").replaceChildren(el("div", { class: "title" }, el("h1", {}, "Evaluation")),
    el("p", { class: "muted" }, `${found.models.length} ${found.models.length === 1 ? "model" : "models"}, newest result ${found.when.slice(0, 16).replace("T", " ")} UTC.`),
    modelsCard(), ...cards.map((c) => c.card), aboutCard());
  for (const c of cards) c.draw();
}

drawAll();
addEventListener("resize", drawAll);
addEventListener("scroll", tip.hide, { passive: true });
