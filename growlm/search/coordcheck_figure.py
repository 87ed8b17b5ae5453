"""The coordinate check as a picture: mean |x| over the size, a line for each step."""

from __future__ import annotations

import numpy as np

from growlm.plan.svg import Chart, grid
from growlm.search.coordcheck import Check, Sweep
from growlm.search.coordinates import KINDS

SIZE = (330, 250)
LABELS = {"d_model": "width (d_model)", "n_layers": "depth (layers)"}
SHADES = ("#B8D4E8", "#8DBADC", "#5E9CCB", "#317CB6", "#0B5A97", "#083D68", "#052744")
"""From the first step to the last."""


def figure(check: Check, beside: Check | None = None) -> str:
    """SVG: a row for each kind, a column for each axis; those of another check to the right of each."""
    checks = [check] if beside is None else [check, beside]
    charts = []
    for k, kind in enumerate(KINDS):
        for axis in range(len(check.sweeps)):
            sweeps = [c.sweeps[axis] for c in checks]
            limits = _limits(sweeps, k)
            for c, sweep in zip(checks, sweeps, strict=True):
                charts.append(_panel(f"{kind}, {c.parametrization}", sweep, k, limits))
    verdict = "passes" if check.passed else "fails"
    title = f"Coordinate check of {check.parametrization} with {check.optimizer}: {verdict}. Mean |x| by step"
    return grid(charts, columns=len(checks) * len(check.sweeps), title=title)


def _limits(sweeps: list[Sweep], kind: int) -> tuple[float, float]:
    """One range for panels that are compared, of a decade at least."""
    values = np.concatenate([sweep.logs[0, :, kind].ravel() for sweep in sweeps])
    values = values[np.isfinite(values)]
    low, high = values.min(), values.max()
    room = max(0.1, (np.log(10) - (high - low)) / 2)
    return float(np.exp(low - room)), float(np.exp(high + room))


def _panel(title: str, sweep: Sweep, kind: int, limits: tuple[float, float]) -> Chart:
    broken = bool(sweep.broken[:, :, kind].any())
    chart = Chart(
        title=f"{title}: {'follows the size' if broken else 'flat'}",
        x_label=LABELS[sweep.axis],
        width=SIZE[0],
        height=SIZE[1],
        x_log=True,
        y_log=True,
        x_ticks=sweep.sizes,
        x_format=lambda x: f"{x:g}",
        y_range=limits,
    )
    steps = sweep.logs.shape[1]
    for step in range(steps):
        shade = SHADES[round(step * (len(SHADES) - 1) / max(1, steps - 1))]
        chart.line(sweep.sizes, np.exp(sweep.logs[0, step, kind]).tolist(), f"{step + 1}", color=shade)
    return chart
