// What the run is trained on: the data card that is kept in its folder.

const KINDS = { text: "running text", signals: "teacher signals", instructions: "instructions" };

function dataCard(run) {
  const card = run.data;
  if (!card) return [];
  const sources = Object.entries(card.sources);
  return [el("h2", {}, "Data"),
    el("p", { class: "muted" }, `${count(card.train.documents)} training documents, ${bytes(card.train.bytes)}, ${count(card.train.tokens)} tokens of a tokenizer with ${whole(card.tokenizer.vocab_size)} entries; fingerprint ${card.fingerprint}.`),
    sourceTable(sources), ...mixtureTable(card), ...stepTable(sources), ...overlapTable(card), ...sampleTexts(sources)];
}

const sum = (splits, key) => Object.values(splits).reduce((total, split) => total + split[key], 0);

function sourceTable(sources) {
  return table("Documents, bytes and tokens after the preparation, training and held out together; languages of sample documents", ["Source", "Kind", "Languages", "Licence", "Documents", "Size", "Tokens", "Held out", "Bytes per token"],
    sources.map(([name, s]) => [name, KINDS[s.kind], shares(s.languages), licences(s.licenses), count(sum(s.splits, "documents")), bytes(sum(s.splits, "bytes")), count(sum(s.splits, "tokens")),
      count(s.splits.valid?.tokens), fixed(2)(s.bytes_per_token)]));
}

const shares = (languages) => Object.entries(languages).sort((a, b) => b[1] - a[1]).slice(0, 3).map(([code, share]) => `${code} ${(100 * share).toFixed(0)}\u00a0%`).join(", ") || NONE;

function licences(found) {
  const all = Object.entries(found), one = all.length < 2;
  return el("span", { class: "lines" }, all.map(([words, documents]) => el("span", {}, one ? words : `${words}: ${count(documents)}`)));
}

function mixtureTable(card) {
  const stages = Object.entries(card.mixture), sources = Object.keys(card.sources);
  if (!stages.length) return [];
  const rows = stages.map(([stage, weights]) => { const total = Object.values(weights).reduce((a, b) => a + b, 0);
    return [stage, ...sources.map((s) => percent(own(weights, s) / total))]; });
  return [table("Mixture: the share of the tokens that each stage draws from each source", ["Stage", ...sources], rows)];
}

function stepTable(sources) {
  const rows = sources.flatMap(([name, s]) => s.steps.map((step) => [name, step.name, whole(step.documents_in), whole(step.documents_out), bytes(step.bytes_in), bytes(step.bytes_out),
    el("span", { class: "lines" }, Object.entries(step.reasons).filter(([, documents]) => documents).map(([reason, documents]) => el("span", {}, `${reason}: ${whole(documents)}`)))]));
  return rows.length ? [fold("Steps of the preparation", table("What each step took in and left", ["Source", "Step", "Documents in", "Out", "Size in", "Out", "Left out or changed"], rows))] : [];
}

function overlapTable(card) {
  const rows = Object.entries(card.contamination).map(([name, documents]) => [name, whole(documents)]);
  return rows.length ? [fold("Overlap with evaluation sets", table("Documents that overlap an evaluation set, and were left out", ["Evaluation set", "Documents"], rows))] : [];
}

function sampleTexts(sources) {
  const shown = sources.filter(([, s]) => s.samples.length);
  return shown.length ? [fold("Sample documents", ...shown.map(([name, s]) => el("div", { class: "texts" }, el("h3", {}, name), s.samples.map((text) => el("blockquote", {}, text)))))] : [];
}

const fold = (title, ...children) => el("details", {}, el("summary", {}, title), children);
