// Axes: from steps to x, from numbers to pixels, and where the ticks go.

/** Index of the first value >= x in a sorted list. */
function firstAtLeast(sorted, x) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

/** Lookup in a run's axis table: step -> tokens, FLOPs, seconds or money; straight between the knots. */
function axisOf(axes, name) {
  const at = axes.step, to = axes[name];
  return (step) => {
    if (at.length < 2) return 0;
    const i = Math.max(1, Math.min(firstAtLeast(at, step), at.length - 1));
    const share = (step - at[i - 1]) / (at[i] - at[i - 1] || 1);
    return to[i - 1] + Math.max(0, Math.min(1, share)) * (to[i] - to[i - 1]);
  };
}

// + 0: an axis begins at 0, not at -0
const multiples = (step, low, high) => {
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9) + 0; k * step <= high * (1 + 1e-9); k++) ticks.push(k * step);
  return ticks;
};

function niceTicks(low, high, wanted) {
  if (!(high > low)) return [low];
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough * 0.999);
  return multiples(step, low, high);
}

function timeTicks(low, high, wanted) {
  const steps = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400];
  const step = steps.find((s) => (high - low) / s <= wanted);
  return step && high > 10 ? multiples(step, low, high) : niceTicks(low, high, wanted);
}

/** Ticks of a logarithmic axis: 1, 2, 5 per decade, or round numbers where it spans less than one. */
function logTicks(low, high, wanted) {
  if (high / low < 10) return niceTicks(low, high, wanted);
  const ticks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++)
    for (const m of high / low > 1e3 ? [1] : [1, 2, 5]) ticks.push(m * 10 ** p);
  return ticks.filter((t) => t >= low && t <= high);
}

/** A function value -> pixel between `from` and `to`; `log` for a logarithmic axis. */
function scale(low, high, from, to, log = false) {
  const f = log ? Math.log : (x) => x;
  const size = f(high) - f(low) || 1;
  return (x) => from + ((f(x) - f(low)) / size) * (to - from);
}
