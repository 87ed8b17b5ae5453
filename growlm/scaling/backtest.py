"""How a law would have done: fitted without the points nearest to the target, and asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from growlm.scaling.candidates import Candidate
from growlm.scaling.interval import SEEDS_NOISE, judge

_SHARES = (0.08, 0.15, 0.25, 0.35, 0.45)
_DRAWS = 12
_UNTESTED = 2.0
"""Factor on the variance of a law with too few points for a back-test."""
_PRIOR_CUTS = 1.0
"""Back-tests count as if as many more had shown the interval to be right."""


@dataclass(frozen=True)
class BackTest:
    """rms: of relative errors over all held-out points, None without any. largest: signed relative error
    at the one nearest to the target. inflation: factor on the variance that the errors ask for, 1 or more.
    """

    rms: float | None
    largest: float | None
    inflation: float
    cuts: int


def back_test(candidate: Candidate) -> BackTest:
    """Leave out more and more of the points on the target's side and predict them from the rest."""
    squares, scores, largest = [], [], None
    for keep, nearest in _cuts(candidate):
        out = ~keep
        judged = judge(candidate, candidate.x[out], keep, _DRAWS)
        error = judged.mean - np.log(candidate.loss[out])
        squares.append(float(np.mean(error**2)))
        variance = judged.variance + judged.fit.sigma**2 + SEEDS_NOISE**2
        scores.append(float(np.mean(error**2 / variance)))
        if largest is None:
            largest = float(np.expm1(error[np.flatnonzero(out) == nearest][0]))
    if not squares:
        return BackTest(None, None, _UNTESTED, 0)
    inflation = (_PRIOR_CUTS + sum(scores)) / (_PRIOR_CUTS + len(scores))
    return BackTest(float(np.sqrt(np.mean(squares))), largest, max(1.0, inflation), len(scores))


def _cuts(candidate: Candidate) -> Iterator[tuple[np.ndarray, int]]:
    """(mask of rows to fit, row nearest to the target) for every cut that leaves enough to fit."""
    centre, scale = candidate.x.mean(axis=0), candidate.x.std(axis=0)
    z = (candidate.x - centre) / scale
    way = (candidate.target[0] - centre) / scale
    score = z @ way
    order = np.argsort(-score, kind="stable")
    nearest, done = int(order[0]), 0
    for share in _SHARES:
        edge = score[order[max(1, round(share * len(order))) - 1]]
        keep = score < edge - 1e-9
        if keep.sum() < candidate.parameters + 1 or keep.sum() == done:
            continue
        if min(len(np.unique(column)) for column in candidate.x[keep].T) < 3:
            continue
        done = int(keep.sum())
        yield keep, nearest
