"""Loss curves with their learning rates, and the sums over a schedule that their laws need. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from growlm.errors import DataError

KNOTS = 120
POINTS = 80
PEAK = 0.999
WARMUP = 0.2


@dataclass(frozen=True)
class Curve:
    """Losses of one run. step, lr: (S,) the schedule, straight in between, from the first step to the last.
    at, loss: (P,) steps and measured losses."""

    name: str
    step: np.ndarray
    lr: np.ndarray
    at: np.ndarray
    loss: np.ndarray

    def until(self, last: float) -> Curve:
        """The measurements up to step `last`; the whole schedule."""
        keep = self.at <= last
        return Curve(self.name, self.step, self.lr, self.at[keep], self.loss[keep])


@dataclass(frozen=True)
class Sums:
    """What the laws need at P measured steps of one schedule.

    area: (P,) S1, sum of learning rates up to there. fall: (K,) by how much the rate fell in each interval
    (negative where it rose), after: (K,) the rate after it. since: (P, K) steps and swept: (P, K) sum of
    learning rates from each fall to each measured step; both are 0 for falls still to come.
    """

    area: np.ndarray
    fall: np.ndarray
    after: np.ndarray
    since: np.ndarray
    swept: np.ndarray


def checked(curves: Sequence[Curve]) -> list[Curve]:
    """The curves in order of steps, each from step 0 on and without the losses of its warm-up.

    A schedule that is written down from a later step on is taken to have warmed up in a straight line until
    then, or for a fifth of the longest run. Raises DataError where a curve makes no sense.
    """
    warm = WARMUP * max((float(c.step.max(initial=0)) for c in curves), default=0.0)
    return [_checked(c, warm) for c in curves]


def _checked(curve: Curve, warm: float) -> Curve:
    if len(np.unique(curve.at)) < len(curve.at):
        raise DataError("a step is there twice", where=curve.name, why="a curve has one loss per step")
    order = np.argsort(curve.at)
    at, loss = curve.at[order], curve.loss[order]
    order = np.argsort(curve.step)
    step, lr = curve.step[order], curve.lr[order]
    if len(lr) == 0 or lr.max() <= 0:
        raise DataError("the learning rate is never above 0", where=curve.name)
    if step[0] > 0:
        warmed = min(step[0], warm)
        before = ([0.0, warmed], [0.0, lr[0]]) if warmed < step[0] else ([0.0], [0.0])
        step, lr = np.concatenate([before[0], step]), np.concatenate([before[1], lr])
    keep = at >= step[int(np.argmax(lr >= PEAK * lr.max()))]
    return Curve(curve.name, step, lr, at[keep], loss[keep])


def thinned(curve: Curve, points: int = POINTS) -> Curve:
    """At most `points` measurements: means over stretches of equal length, so that noise is averaged."""
    if len(curve.at) <= points:
        return curve
    part = np.linspace(0, len(curve.at), points + 1).astype(int)
    sizes = np.diff(part)
    at = np.add.reduceat(curve.at, part[:-1]) / sizes
    return Curve(curve.name, curve.step, curve.lr, at, np.add.reduceat(curve.loss, part[:-1]) / sizes)


def sums(curve: Curve, at: np.ndarray, knots: int = KNOTS) -> Sums:
    """The sums over the schedule of `curve` at steps `at`."""
    first = float(curve.step[0])
    ends = np.unique(np.concatenate([np.linspace(first, curve.step[-1], knots + 1), _corners(curve)]))
    rate = np.interp(ends, curve.step, curve.lr)
    area = np.concatenate([[0.0], np.cumsum(np.diff(ends) * (rate[1:] + rate[:-1]) / 2)])
    fall, middle = -np.diff(rate), (ends[1:] + ends[:-1]) / 2
    some = (np.abs(fall) > 1e-9 * rate.max()) & (middle > ends[int(np.argmax(rate >= PEAK * rate.max()))])
    fall, middle, after = fall[some], middle[some], rate[1:][some]
    here = np.interp(at, ends, area)
    since = np.maximum(at[:, None] - middle[None], 0.0)
    swept = np.maximum(here[:, None] - np.interp(middle, ends, area)[None], 0.0)
    return Sums(here, fall, after, since, swept)


def _corners(curve: Curve) -> np.ndarray:
    """Steps where the schedule bends most: jumps, begins and ends of decays."""
    bend = np.abs(np.diff(np.diff(curve.lr), prepend=0.0, append=0.0))
    inner = np.flatnonzero(bend > 0.01 * curve.lr.max())[:50]
    return curve.step[np.clip(inner, 0, len(curve.step) - 1)]
