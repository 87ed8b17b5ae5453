"""What a growth carried over, read from the records of finished pilot runs. No torch.

A run that grew once and one that trained the larger size alone, at the same learning rate and batch. Only
losses at the full learning rate count: a decay lowers the loss without adding tokens' worth. The single
run's curve, c + B D^-b, says how many tokens D the grown model is worth at its end; less what it trained
after the growth, that is what it started with:

    rho = ln(start / pessimistic) / ln(optimistic / pessimistic)

pessimistic: tokens after which the single run has the small model's last loss; optimistic: the small model's
tokens. Without the single run its curve is taken to fall as the small model's did (the same B and b, another
c), which is weaker: the interval says how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from growlm.errors import RecipeError
from growlm.plan.growth.reuse_law import ReuseLaw, fit_reuse

Array = np.ndarray
Records = Sequence[Mapping[str, Any]]

TAIL = 0.15
"""The last share of a curve whose mean is its end."""

EARLY = 0.15
"""The first share of a curve that is left out of a fit: warm-up, or what masks do while they open."""

SAME_SIZE = 0.02
TRUSTED = (-0.5, 1.5)
"""rho beyond this is cut off: no plan should rest on it."""

EXPONENTS = np.linspace(0.1, 1.2, 221)
LEAST_WIDTH = 0.05
"""The interval of rho is at least so wide to each side: noise of steps is not all, seeds differ too."""


@dataclass(frozen=True)
class Curve:
    """Losses of one stage at the full learning rate: `tokens` since the stage began; `params` of its model.

    `total`: all tokens of the stage.
    """

    params: int
    total: float
    tokens: Array
    losses: Array

    def end(self) -> tuple[float, float, float]:
        """(tokens, loss, standard error) at the end of what was at the full learning rate."""
        last = self.tokens >= (1 - TAIL) * self.tokens[-1]
        losses = self.losses[last]
        error = losses.std(ddof=1) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
        return float(self.tokens[last].mean()), float(losses.mean()), float(error)


@dataclass(frozen=True)
class Carried:
    """rho with its interval (two standard errors, not cut to 0..1), and what it came from.

    `first_tokens` of the small model; `pessimistic` and `start` in tokens of the large one. `against_alone`:
    a single run was there to compare with.
    """

    rho: float
    interval: tuple[float, float]
    params: tuple[int, int]
    first_tokens: float
    pessimistic: float
    start: float
    against_alone: bool


def curves_of(records: Records) -> list[Curve]:
    """The curve of every stage of a run. Raises RecipeError if it has no losses."""
    steps: dict[int, list[Mapping[str, Any]]] = {}
    params: dict[int, int] = {}
    for record in records:
        if record["kind"] == "stage":
            params[record["stage"]] = int(record["parameters"])
        elif record["kind"] == "step" and record.get("applied") and record.get("loss") is not None:
            steps.setdefault(record["stage"], []).append(record)
    if not steps or not set(steps) <= set(params):
        raise RecipeError(
            "the run has no losses to read", where="--pilot", fix="name a finished run's folder"
        )
    found, before = [], 0.0
    for stage, taken in sorted(steps.items()):
        top = 0.98 * max(step["lr"] for step in taken)
        full = [step for step in taken if step["lr"] >= top]
        tokens = np.array([step["tokens"] for step in full], dtype=float) - before
        losses = np.array([step["loss"] for step in full], dtype=float)
        found.append(Curve(params[stage], taken[-1]["tokens"] - before, tokens, losses))
        before = float(taken[-1]["tokens"])
    return found


@dataclass(frozen=True)
class Pilots:
    """All pilots together: the range of rho, and the law of reuse if two grew after different tokens."""

    carried: list[Carried]
    rho: tuple[float, float]
    reuse: ReuseLaw | None


def read_pilots(runs: Sequence[Records]) -> Pilots:
    """Of every run that grew, each against the run of its larger size alone if there is one.

    Raises RecipeError if none grew or one says nothing.
    """
    curves = [curves_of(run) for run in runs]
    grown = [run for run, stages in zip(runs, curves, strict=True) if len(stages) > 1]
    singles = {stages[0].params: run for run, stages in zip(runs, curves, strict=True) if len(stages) == 1}
    if not grown:
        raise RecipeError("no pilot grew", where="--pilot", fix="name a finished run with two stages")
    carried = [read_pilot(run, _nearest(singles, curves_of(run)[1].params)) for run in grown]
    ends = [end for one in carried for end in one.interval]
    if not all(map(math.isfinite, ends)):
        raise RecipeError(
            "the pilot does not say what was carried over",
            where="--pilot",
            why="its losses are too noisy or too few for the difference to be seen",
            fix="train it for longer, or add a run of the larger size alone: --pilot RUN --pilot ALONE",
        )
    low, high = (min(max(end, TRUSTED[0]), TRUSTED[1]) for end in (min(ends), max(ends)))
    return Pilots(carried, (low, high), _reuse(grown))


def _nearest(singles: Mapping[int, Records], params: int) -> Records | None:
    return next((run for size, run in singles.items() if abs(size / params - 1) <= SAME_SIZE), None)


def _reuse(grown: Sequence[Records]) -> ReuseLaw | None:
    """Fitted to losses of the second stages; None unless sizes are the same and first tokens differ."""
    stages = [curves_of(run)[:2] for run in grown]
    sizes = {(small.params, large.params) for small, large in stages}
    firsts = {round(small.total) for small, _ in stages}
    if len(sizes) > 1 or len(firsts) < 2:
        return None
    points = []
    for small, large in stages:
        for part in np.array_split(np.flatnonzero(large.tokens >= EARLY * large.tokens[-1]), 6):
            points.append((small.total, float(large.tokens[part].mean()), float(large.losses[part].mean())))
    return fit_reuse(points)


def read_pilot(grown: Records, alone: Records | None = None) -> Carried:
    """What the first growth of a run carried over, against a run of the larger size alone if there is one.

    Raises RecipeError if the runs do not belong together or say nothing.
    """
    stages = curves_of(grown)
    if len(stages) < 2:
        raise RecipeError(
            "the pilot did not grow", where="--pilot", fix="name the run that grew first, then the one alone"
        )
    small, large = stages[:2]
    if min(len(small.losses), len(large.losses)) < 20:
        raise RecipeError("the pilot is too short: a stage has under 20 steps", where="--pilot")
    if alone is None:
        return _by_shape(small, large)
    single = curves_of(alone)[0]
    if abs(single.params / large.params - 1) > SAME_SIZE:
        raise RecipeError(
            f"the runs differ in size: {single.params:,} alone, {large.params:,} grown",
            where="--pilot",
            why="the grown run is compared with one of its larger size",
            fix="name the two runs that belong together",
        )
    return _against(small, large, single)


def _against(small: Curve, large: Curve, single: Curve) -> Carried:
    """By the curve of the larger size alone."""
    c, b, scale = _fit(single)
    (loss1, error1), (at, loss2, error2) = _last_loss(small), large.end()

    def rho(first: float, last: float) -> tuple[float, float, float]:
        return _rho(_worth(first, c, b, scale), _worth(last, c, b, scale) - at, small.total)

    middle, pessimistic, start = rho(loss1, loss2)
    ends = [rho(loss1 + s * error1, loss2 + t * error2)[0] for s in (-2, 2) for t in (-2, 2)]
    return Carried(
        rho=middle,
        interval=(min(*ends, middle - LEAST_WIDTH), max(*ends, middle + LEAST_WIDTH)),
        params=(small.params, large.params),
        first_tokens=small.total,
        pessimistic=pessimistic,
        start=start,
        against_alone=True,
    )


def _by_shape(small: Curve, large: Curve) -> Carried:
    """By the fall of the small model's curve alone: the start that lets the grown one's follow it."""
    _, b, scale = _fit(small)
    late = large.tokens >= EARLY * large.tokens[-1]
    tokens, losses = large.tokens[late], large.losses[late]
    loss1 = _last_loss(small)[0]
    tried = []
    for start in small.total * np.geomspace(1e-3, 4, 160):
        fall = scale * (start + tokens) ** -b
        c = float((losses - fall).mean())
        pessimistic = _worth(loss1, c, b, scale)
        error = float(((losses - fall - c) ** 2).sum())
        tried.append((error, *_rho(pessimistic, start, small.total)))
    best = min(tried)
    near = [
        item[1] for item in tried if item[0] <= best[0] * (1 + 4 / len(tokens)) and math.isfinite(item[1])
    ]
    return Carried(
        rho=best[1],
        interval=(min([*near, best[1] - LEAST_WIDTH]), max([*near, best[1] + LEAST_WIDTH])),
        params=(small.params, large.params),
        first_tokens=small.total,
        pessimistic=best[2],
        start=best[3],
        against_alone=False,
    )


def _last_loss(curve: Curve) -> tuple[float, float]:
    """(loss, standard error) at the very end of a stage: the mean of its tail, carried on along its fit."""
    c, b, scale = _fit(curve)
    last = curve.tokens >= (1 - TAIL) * curve.tokens[-1]
    fitted = c + scale * curve.tokens[last] ** -b
    return c + scale * curve.total**-b + float((curve.losses[last] - fitted).mean()), curve.end()[2]


def _rho(pessimistic: float, start: float, optimistic: float) -> tuple[float, float, float]:
    """(rho, pessimistic, start); rho is -infinity where the grown model was worth nothing."""
    if not 0 < pessimistic < optimistic:
        return math.nan, pessimistic, start
    rho = math.log(start / pessimistic) / math.log(optimistic / pessimistic) if start > 0 else -math.inf
    return rho, pessimistic, start


def _fit(curve: Curve) -> tuple[float, float, float]:
    """(c, b, B) of c + B D^-b by least squares: for each exponent the others are linear."""
    late = curve.tokens >= EARLY * curve.tokens[-1]
    tokens, losses = curve.tokens[late], curve.losses[late]
    best = (math.inf, 0.0, 0.0, 0.0)
    for b in EXPONENTS:
        fall = tokens**-b
        scale = float(np.cov(fall, losses, bias=True)[0, 1] / fall.var())
        c = float(losses.mean() - scale * fall.mean())
        error = float(((losses - c - scale * fall) ** 2).sum())
        if scale > 0:
            best = min(best, (error, c, float(b), scale))
    if not math.isfinite(best[0]):
        raise RecipeError("the loss of a pilot run does not fall", where="--pilot", fix="train it for longer")
    return best[1:]


def _worth(loss: float, c: float, b: float, scale: float) -> float:
    """Tokens after which the curve is at a loss; infinity if it never is."""
    return (scale / (loss - c)) ** (1 / b) if loss > c else math.inf
