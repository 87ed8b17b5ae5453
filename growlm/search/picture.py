"""The picture of a search: loss over every searched field, a line for each setting of the others."""

from __future__ import annotations

import math

from growlm.plan.svg import COLORS, Chart, grid
from growlm.search.optimum import edges_of
from growlm.search.result import Outcome
from growlm.search.space import Axis, short
from growlm.search.study import Result

LINES = 7
"""Settings of the other fields that are drawn, best first."""


def picture(outcome: Outcome) -> str:
    """One chart for every field of numbers, as SVG."""
    axes = [axis for axis in outcome.plan.space.axes if axis.numeric and len(axis.values) > 1]
    charts = [_chart(outcome, axis) for axis in axes] or [Chart(title="no field of numbers was searched")]
    return grid(charts, columns=2, title=f"search {outcome.name}: validation loss of the proxy")


def _chart(outcome: Outcome, axis: Axis) -> Chart:
    o = outcome.optimum
    done = [
        r
        for r in outcome.results
        if r.seed == outcome.plan.seed and r.loss is not None and math.isfinite(r.loss)
    ]
    chart = Chart(
        title=axis.name,
        x_label=axis.name,
        y_label="validation loss",
        x_log=axis.log,
        x_ticks=[float(v) for v in axis.values] if len(axis.values) <= 12 else None,
        x_format=short,
        y_range=_range(done),
        width=620,
    )
    if o.sigma:
        places = [float(v) for v in axis.values]
        ends = [min(places), max(places)]
        chart.band(ends, [o.loss] * 2, [o.loss + o.noise] * 2, "noise of seeds", color="#999999")
    for index, (label, line) in enumerate(_lines(outcome, axis, done)):
        color = COLORS[index % len(COLORS)]
        xs, ys = [float(r.values[axis.name]) for r in line], [r.loss or 0.0 for r in line]
        chart.line(xs, ys, label, color=color, thickness=2.6 if index == 0 else 1.4)
        chart.points(xs, ys, color=color, radius=3.5)
    chart.points(
        [float(o.chosen.values[axis.name])],
        [o.chosen.loss or 0.0],
        "on the edge"
        if any(e.name == axis.name for e in edges_of(outcome.plan.space, o.chosen.values))
        else "used",
        color="#000000",
        radius=6,
    )
    return chart


def _lines(outcome: Outcome, axis: Axis, done: list[Result]) -> list[tuple[str, list[Result]]]:
    """Points that differ in this axis alone, with the values of the others: the best setting first."""
    if outcome.plan.sampler != "grid" and len(outcome.plan.space.axes) > 1:
        return [("trials", sorted(done, key=lambda r: float(r.values[axis.name])))] if done else []
    found: dict[tuple[tuple[str, object], ...], list[Result]] = {}
    for r in done:
        others = tuple((name, value) for name, value in r.values.items() if name != axis.name)
        found.setdefault(tuple(sorted(others)), []).append(r)
    ranked = sorted(found.items(), key=lambda item: min(r.loss or math.inf for r in item[1]))
    return [
        (
            ", ".join(f"{name.rpartition('.')[2]} {short(value)}" for name, value in others),  # pyright: ignore[reportArgumentType]
            sorted(line, key=lambda r: float(r.values[axis.name])),
        )
        for others, line in ranked[:LINES]
    ]


def _range(done: list[Result]) -> tuple[float, float] | None:
    """The losses, without what is so far up that the optimum would be flat."""
    losses = sorted(r.loss or 0.0 for r in done)
    if len(losses) < 2 or losses[0] == losses[-1]:
        return None
    top = min(losses[-1], losses[0] + 4 * (losses[len(losses) // 2] - losses[0]) + 0.02)
    room = 0.06 * (top - losses[0])
    return losses[0] - room, top + room
