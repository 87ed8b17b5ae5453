"""The loss of a model that was not trained, from the losses of models that were."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from growlm.errors import DataError
from growlm.scaling.backtest import BackTest, back_test
from growlm.scaling.candidates import Target, candidates
from growlm.scaling.caution import cautions
from growlm.scaling.interval import Judged, combine, judge, sigmas
from growlm.scaling.screen import screened
from growlm.scaling.table import Table

_LEAST_SPARE = 3
"""Fewer degrees of freedom than this would say nothing at all."""


@dataclass(frozen=True)
class LawResult:
    """What one law says: its formula and constants, its loss, its error when points were held out."""

    name: str
    formula: str
    constants: dict[str, float]
    loss: float
    weight: float
    points: int
    back_test: BackTest


@dataclass(frozen=True)
class Prediction:
    """Loss in nats per token with its 90 % interval, and what it rests on.

    extrapolation: variable -> target / largest value in the table.
    """

    target: Target
    loss: float
    low: float
    high: float
    laws: tuple[LawResult, ...]
    extrapolation: dict[str, float]
    warnings: tuple[str, ...]
    points: int


def predict(table: Table, target: Target, law: str | None = None) -> Prediction:
    """Predict the loss of `target` from the runs of `table`; `law` forces one of `candidates.NAMES`.

    Raises DataError for too few points, RecipeError when no law fits table and target.
    """
    if len(table) < 3:
        raise DataError(f"{len(table)} points are too few to fit a law", fix="give 5 runs or more")
    table, target = screened(table), target.completed()
    found = candidates(table, target, law)
    judged = [judge(c, c.target) for c in found]
    tests = [back_test(c) for c in found]
    mean, variance, weights = combine(judged, [t.rms for t in tests])
    spare = max(len(np.unique(law.candidate.groups)) - law.candidate.parameters for law in judged)
    half = sigmas(max(spare, _LEAST_SPARE)) * float(np.sqrt(_inflated(float(variance[0]), tests, weights)))
    extrapolation = _extrapolation(table, target)
    return Prediction(
        target=target,
        loss=float(np.exp(mean[0])),
        low=float(np.exp(mean[0] - half)),
        high=float(np.exp(mean[0] + half)),
        laws=tuple(_result(j, t, float(w)) for j, t, w in zip(judged, tests, weights, strict=True)),
        extrapolation=extrapolation,
        warnings=(*cautions(table, target, extrapolation, [c.name for c in found]), *table.notes),
        points=len(table),
    )


def _inflated(variance: float, tests: list[BackTest], weights: np.ndarray) -> float:
    """The variance that back-tests ask for: up to the one of three times the errors they saw."""
    asked = variance * float(weights @ np.array([t.inflation for t in tests]))
    seen = [t.rms for t in tests if t.rms is not None]
    return max(variance, min(asked, 9 * max(seen) ** 2)) if seen else asked


def _result(judged: Judged, test: BackTest, weight: float) -> LawResult:
    fit, candidate = judged.fit, judged.candidate
    constants = {"E": fit.floor}
    for letter, scale, exponent in zip("AB", fit.scales, fit.exponents, strict=False):
        constants |= {letter: float(scale), {"A": "alpha", "B": "beta"}[letter]: float(exponent)}
    loss = float(np.exp(judged.mean[0]))
    return LawResult(
        candidate.name, candidate.formula(fit), constants, loss, weight, len(candidate.loss), test
    )


def _extrapolation(table: Table, target: Target) -> dict[str, float]:
    given = {"n": target.n, "d": target.d, "c": target.c, "width": target.width}
    return {k: v / float(table[k].max()) for k, v in given.items() if v is not None and k in table}
