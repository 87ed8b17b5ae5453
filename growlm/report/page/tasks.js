// Tasks that are measured while a run trains: a small chart for each, with its interval and what guessing scores.

function taskCharts(node, run, axis) {
  const tasks = Object.entries(run.tasks);
  if (!tasks.length) return node.replaceChildren();
  const { x, stages } = frameOf(run, axis), hosts = tasks.map(() => el("div", { class: "task" }));
  node.replaceChildren(el("h2", {}, "Tasks"), el("div", { class: "grid2" }, hosts),
    el("p", { class: "note muted" }, "Always the same items. Bands: 95 % intervals over the items. Dashed: what guessing scores."));
  tasks.forEach(([name, task], i) => taskChart(hosts[i], name, task, x, stages, axis));
}

function taskChart(host, name, task, x, stages, axis) {
  const key = colour(0), steps = task.value[0].map(x);
  const chance = isNumber(task.chance) ? [{ name: "chance", key: "train", ahead: true, x: [0, axis.high], y: [task.chance, task.chance] }] : [];
  chart(host, { title: `${name}, ${whole(task.items)} items`, axis, format: VALUE.share, height: 170, stages: unnamed(stages),
    bands: [{ x: steps, low: task.low[1], high: task.high[1], key }], lines: [line(x, task.value, { name, key, dots: true }), ...chance] });
  if (task.cut) host.append(el("p", { class: "note muted" }, `${whole(task.cut)} prompts do not fit the context and lose their beginning.`));
}
