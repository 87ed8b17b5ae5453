"""The optimum of a search, and how far it can be trusted: edges, the noise of seeds, curvature.

The best point is the least of many noisy losses, so what counts as its loss is the mean over its n seeds,
whose deviation sigma is that of every point. A point of one seed differs from it when its loss does by more
than t sqrt(1 + 1/n) sigma, with Student's t of n - 1 degrees of freedom at 95 %.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from growlm.search.space import Axis, Space, Value, axis_text
from growlm.search.study import Result

REACH = 2.5
"""Notches around the best point whose losses a parabola is fitted to."""


@dataclass(frozen=True)
class Edge:
    """An axis whose best value is its first or its last."""

    name: str
    value: Value
    side: Literal["smallest", "largest"]
    extend: str
    """The `--search` text that reaches further."""


@dataclass(frozen=True)
class Parabola:
    """loss = least + curvature * (position - best)^2 along one axis; positions in notches if it is
    logarithmic, else in the field's unit."""

    name: str
    best: float
    """The value at the vertex."""
    uncertainty: float | None
    """Standard error of its position; None where three points leave nothing to judge by."""
    curvature: float
    """What one notch (or unit) beside the vertex costs."""
    points: int


@dataclass(frozen=True)
class Optimum:
    """What a search found."""

    best: Result
    """Least loss of all."""
    chosen: Result
    """The point to use: the best; if that is on an edge, one within its noise that is on none, provided that
    the vertices of the parabolas around both lie inside with their errors."""
    edges: tuple[Edge, ...]
    """Of the chosen point: empty if it can be trusted."""
    seed_losses: tuple[float, ...]
    sigma: float | None
    """Standard deviation between seeds; None for fewer than two."""
    loss: float
    """Of the best point: the mean over its seeds, if all are finite."""
    noise: float
    """What a loss must be above `loss` to differ from it."""
    within_noise: tuple[Result, ...]
    parabolas: tuple[Parabola, ...]
    spread: dict[str, float]
    """By field: how much the least loss differs between its best and its worst value."""


def covered(space: Space, results: Sequence[Result]) -> Space:
    """The space with the values that an earlier, smaller search of the same name measured."""
    axes = []
    for axis in space.axes:
        values = dict.fromkeys(
            (*axis.values, *(r.values[axis.name] for r in results if r.measured and axis.name in r.values))
        )
        axes.append(replace(axis, values=tuple(sorted(values, key=float) if axis.numeric else values)))
    return Space(tuple(axes))


def find_optimum(space: Space, results: Sequence[Result], seed: int) -> Optimum | None:
    """The optimum of the finished trials, of which those with `seed` are compared; None if none is done."""
    done = [r for r in results if r.loss is not None and math.isfinite(r.loss) and r.seed == seed]
    if not done:
        return None
    best = min(done, key=_order)
    again = [r.order for r in results if r.loss is not None and r.values == best.values and r.seed != seed]
    seeds = (best.order, *again)
    sigma = statistics.stdev(seeds) if len(seeds) > 1 and all(map(math.isfinite, seeds)) else None
    loss = statistics.mean(seeds) if sigma is not None else best.order
    noise = threshold(sigma, len(seeds))
    near = [r for r in done if r is best or r.order - loss <= noise]
    done = [replace(r, loss=loss) if r is best else r for r in done]
    edges = edges_of(space, best.values)
    inside = min((r for r in near if not edges_of(space, r.values)), key=_order, default=best)
    fits = [_parabolas(space, done, r, sigma) for r in (best, inside)]
    chosen = inside if all(_is_inside(space, edges, fit) for fit in fits) else best
    return Optimum(
        best=best,
        chosen=chosen,
        edges=tuple(edges_of(space, chosen.values)),
        seed_losses=seeds,
        sigma=sigma,
        loss=loss,
        noise=noise,
        within_noise=tuple(sorted((r for r in near if r is not best), key=_order)),
        parabolas=tuple(_parabolas(space, done, chosen, sigma)),
        spread={axis.name: _spread(axis, done) for axis in space.axes},
    )


def threshold(sigma: float | None, seeds: int) -> float:
    """The largest difference that noise explains between the mean loss of a point over so many seeds, whose
    deviation is sigma, and the loss of another with one; 0 if the noise is not known."""
    if sigma is None:
        return 0.0
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, 0.975)) * math.sqrt(1 + 1 / seeds) * sigma


def missing_beside(space: Space, results: Sequence[Result], optimum: Optimum, seed: int) -> list[Result]:
    """The last trials of grid points right beside the optimum of which none was measured."""
    of_seed = [r for r in results if r.seed == seed]
    measured = [r.values for r in of_seed if r.measured]
    points = [p for r in (optimum.best, optimum.chosen) for p in neighbours(space, r.values)]
    return [r for r in reversed(of_seed) if r.values in points and r.values not in measured]


def _is_inside(space: Space, edges: Sequence[Edge], parabolas: Sequence[Parabola]) -> bool:
    """Whether, along every edge, the vertex of the parabola lies between the ends with its error."""
    by_name = {p.name: p for p in parabolas if p.uncertainty is not None}
    return all(e.name in by_name and _contains(space, by_name[e.name]) for e in edges)


def _contains(space: Space, p: Parabola) -> bool:
    axis = next(axis for axis in space.axes if axis.name == p.name)
    if axis.log and not 0 < p.best < math.inf:
        return False
    error = p.uncertainty or 0.0
    low, at, high = map(axis.position, (axis.values[0], p.best, axis.values[-1]))
    return low < at - error and at + error < high


def edges_of(space: Space, values: dict[str, Value]) -> list[Edge]:
    """The axes on whose edge a point lies: nearer to the end than to the next value."""
    return [edge for axis in space.axes if (edge := _edge(axis, values[axis.name]))]


def neighbours(space: Space, values: dict[str, Value]) -> list[dict[str, Value]]:
    """The points of the grid one step beside a point, along every axis of numbers."""
    found = []
    for axis in space.axes:
        if not axis.numeric or values[axis.name] not in axis.values:
            continue
        at = axis.values.index(values[axis.name])
        for beside in (at - 1, at + 1):
            if 0 <= beside < len(axis.values):
                found.append(values | {axis.name: axis.values[beside]})
    return found


def _edge(axis: Axis, value: Value) -> Edge | None:
    if not axis.numeric or len(axis.values) < 2:
        return None
    places = [axis.position(v) for v in axis.values]
    at = axis.position(value)
    low = at - places[0] < (places[1] - places[0]) / 2
    high = places[-1] - at < (places[-1] - places[-2]) / 2
    if (low and not axis.is_bound(axis.values[0])) or (high and not axis.is_bound(axis.values[-1])):
        side = "smallest" if low and not axis.is_bound(axis.values[0]) else "largest"
        return Edge(axis.name, value, side, _extended(axis, low=side == "smallest"))
    return None


def _extended(axis: Axis, *, low: bool) -> str:
    """The values of an axis with two more beyond one of its ends."""
    first, last = float(axis.values[0]), float(axis.values[-1])
    step = float(axis.values[1]) / first if axis.log else float(axis.values[1]) - first
    beyond = [(first / step**n if axis.log else first - n * step) for n in (2, 1)]
    if not low:
        step = last / float(axis.values[-2]) if axis.log else last - float(axis.values[-2])
        beyond = [(last * step**n if axis.log else last + n * step) for n in (1, 2)]
    whole = all(isinstance(v, int) for v in axis.values)
    new = [max(1, round(v)) if whole else float(f"{v:.12g}") for v in beyond]
    return axis_text(replace(axis, values=tuple(sorted({*new, *axis.values}, key=float))))


def _parabolas(space: Space, done: Sequence[Result], at: Result, sigma: float | None) -> list[Parabola]:
    """A parabola along every axis of numbers: on a grid from the points beside `at`, else from the better
    half of all points at once, where no two share a line."""
    axes = [axis for axis in space.axes if axis.numeric and len(axis.values) > 1]
    others = [axis.name for axis in space.axes if axis not in axes]
    done = [r for r in done if all(r.values[name] == at.values[name] for name in others)]
    found = []
    for axis in axes:
        line = [r for r in done if all(r.values[a.name] == at.values[a.name] for a in axes if a is not axis)]
        close = [r for r in line if abs(_place(axis, r) - _place(axis, at)) <= REACH or not axis.log]
        found += _fit([axis], close, at, sigma)
    if found or not axes:
        return found
    better = sorted(done, key=_order)[: max(2 * len(axes) + 2, len(done) // 2)]
    return _fit(axes, better, at, sigma)


def _fit(axes: list[Axis], points: Sequence[Result], at: Result, sigma: float | None) -> list[Parabola]:
    """Least squares of loss = a + sum over axes of b x + c x^2, x from `at`; those that open upwards."""
    if len({tuple(_place(axis, r) for axis in axes) for r in points}) < 2 * len(axes) + 1:
        return []
    x = np.array([[_place(axis, r) - _place(axis, at) for axis in axes] for r in points])
    y = np.array([r.order for r in points])
    design = np.hstack([np.ones((len(x), 1)), x, x**2])
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    if rank < design.shape[1]:
        return []
    free = len(points) - design.shape[1]
    residual = float(np.sum((design @ solution - y) ** 2)) / free if free else 0.0
    variance = max(residual, (sigma or 0.0) ** 2)
    covariance = np.linalg.inv(design.T @ design) * variance
    found = []
    for j, axis in enumerate(axes, start=1):
        k = j + len(axes)
        b, c = float(solution[j]), float(solution[k])
        if c <= 0:
            continue
        slope = np.array([-1 / (2 * c), b / (2 * c * c)])
        error = float(slope @ covariance[np.ix_((j, k), (j, k))] @ slope)
        place = _place(axis, at) - b / (2 * c)
        vertex = 2.0**place if axis.log else place
        spread = math.sqrt(error) if variance else None
        found.append(Parabola(axis.name, vertex, spread, c, len(points)))
    return found


def _spread(axis: Axis, done: Sequence[Result]) -> float:
    """Between the best and the worst value of an axis, each at its best point."""
    least: dict[Value, float] = {}
    for r in done:
        value = r.values[axis.name]
        if axis.span and value not in axis.values:  # drawn from a range: to the nearest notch
            value = min(axis.values, key=lambda v: abs(axis.position(v) - axis.position(r.values[axis.name])))
        least[value] = min(least.get(value, math.inf), r.order)
    return max(least.values()) - min(least.values())


def _order(r: Result) -> float:
    return r.order


def _place(axis: Axis, r: Result) -> float:
    return axis.position(r.values[axis.name])
