"""From several laws one loss with an interval, calibrated by how far off the laws were at points held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from growlm.scaling.candidates import Candidate
from growlm.scaling.power_sum import Fit, fit_powers

LEVEL = 0.9
SEEDS_NOISE = 3e-4
"""Relative: two runs of one recipe differ by this much at best."""
_LACK = 0.015
"""Share of the loss by which a law is off as far beyond the data as the data reach, both in logarithms: at 30
to 300 times the compute single laws are 0.5 to 3 % off."""
_DRAWS = 48


@dataclass(frozen=True)
class Judged:
    """One fitted law at T targets: log losses (T,), their variance from the fit alone, and its noise."""

    candidate: Candidate
    fit: Fit
    mean: np.ndarray
    variance: np.ndarray


def judge(
    candidate: Candidate, at: np.ndarray, keep: np.ndarray | None = None, draws: int = _DRAWS
) -> Judged:
    """Fit a law to its rows `keep`.

    Its variance is the larger of a bootstrap over groups and a jackknife of the smallest size, and what a law
    is off by that fits where it was fitted and goes on beyond.
    """
    rows = np.ones(len(candidate.loss), bool) if keep is None else keep
    fit = candidate.fit(rows)
    x, loss, sizes = candidate.x[rows], candidate.loss[rows], candidate.sizes[rows]
    mean = fit.log_loss(at)[0]
    _, group = np.unique(candidate.groups[rows], return_inverse=True)
    groups = int(group.max()) + 1
    share = np.random.default_rng(0).exponential(size=(draws, groups))
    weights = (share * groups / share.sum(axis=1, keepdims=True))[:, group]
    again = fit_powers(
        x, loss, candidate.of_term, weights=weights, delta=candidate.delta, prior=candidate.prior, start=fit
    )
    few = groups / max(groups - candidate.parameters, 1)
    variance = again.log_loss(at).var(axis=0) * few
    without = sizes > sizes.min() * 1.001
    if len(np.unique(sizes[without])) >= 3 and without.sum() > candidate.parameters:
        shorter = fit_powers(
            x, loss, candidate.of_term, weights=without[None].astype(float), delta=candidate.delta,
            prior=candidate.prior, start=fit,
        )  # fmt: skip
        variance = np.maximum(variance, (shorter.log_loss(at)[0] - mean) ** 2)
    beyond = np.maximum(np.maximum(at - x.max(axis=0), x.min(axis=0) - at), 0.0) / np.ptp(x, axis=0)
    return Judged(candidate, fit, mean, variance + _LACK**2 * (beyond**2).sum(axis=1))


def combine(
    laws: Sequence[Judged], errors: Sequence[float | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T,) log loss and (T,) its variance, and the weight of each law.

    A law counts by its error in back-tests, its noise and its own variance. One that could not be tested
    (None) is taken to be twice as far off as the worst that could.
    """
    noise = np.array([law.fit.sigma for law in laws])
    worst = 2 * max([e for e in errors if e is not None] or [float(noise.max())])
    known = np.array([worst if e is None else e for e in errors])
    variance = np.array([law.variance for law in laws])
    weights = 1 / (known**2 + noise**2 + variance.mean(axis=1) + SEEDS_NOISE**2)
    weights = weights / weights.sum()
    means = np.array([law.mean for law in laws])
    mean = weights @ means
    spread = weights @ (means - mean) ** 2
    return mean, weights @ variance + spread + weights @ noise**2 + SEEDS_NOISE**2, weights


def sigmas(spare: int) -> float:
    """Standard deviations on either side of the interval, by Student's t for `spare` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(spare, (1 + LEVEL) / 2))
