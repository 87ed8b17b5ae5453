"""The loss curve of a schedule that was not run, from the curves of schedules that were. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from growlm.errors import DataError, RecipeError
from growlm.scaling.curve_laws import FITS, Annealing, Fit, MultiPower
from growlm.scaling.curves import Curve, checked, sums, thinned
from growlm.scaling.interval import sigmas

_LEAST_POINTS = 8
_SPLIT = 0.6
"""With one curve alone: share of it that is fitted to predict the rest."""


@dataclass(frozen=True)
class CurveResult:
    """What one law says of the target: its constants, its last loss, its error on curves held out."""

    name: str
    constants: dict[str, float]
    loss: float
    weight: float
    error: float


@dataclass(frozen=True)
class CurvePrediction:
    """The predicted curve of `name` with its 90 % band, (P,) each; `loss`, `low`, `high` are its end.

    back_test: curve that was held out -> relative error of its last loss.
    """

    name: str
    loss: float
    low: float
    high: float
    at: tuple[float, ...]
    path: tuple[float, ...]
    half: tuple[float, ...]
    laws: tuple[CurveResult, ...]
    back_test: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class FittedCurves:
    """Laws fitted to curves. held_out: law -> curve -> (P,) relative errors when that curve was held out."""

    curves: tuple[Curve, ...]
    laws: tuple[Annealing | MultiPower, ...]
    held_out: tuple[tuple[np.ndarray, ...], ...]

    def predict(self, target: Curve) -> CurvePrediction:
        """The losses of the schedule `target` at its steps `at` (what it measured is not looked at)."""
        *_, target = checked([*self.curves, target])
        errors = np.array([_rms(curves) for curves in self.held_out])
        weights = 1 / (errors**2 + np.mean(errors**2))
        weights = weights / weights.sum()
        there = sums(target, target.at)
        paths = np.array([law.loss(there) for law in self.laws])
        path = weights @ paths
        spread = np.sqrt(weights @ (paths - path) ** 2)
        half = sigmas(max(len(self.curves), 2)) * np.hypot(spread, path * float(weights @ errors))
        last, width = float(path[-1]), float(half[-1])
        by_curve = zip(self.curves, *self.held_out, strict=True)
        return CurvePrediction(
            target.name,
            last,
            last - width,
            last + width,
            tuple(target.at.tolist()),
            tuple(path.tolist()),
            tuple(half.tolist()),
            tuple(_result(*of) for of in zip(self.laws, paths, weights, errors, strict=True)),
            {c.name: float(np.mean([e[-1] for e in out])) for c, *out in by_curve},
            _warnings(self.curves, target),
        )


def fit_curves(curves: Sequence[Curve], law: str | None = None) -> FittedCurves:
    """Fit the laws of `curve_laws.FITS`, or `law` alone, to the curves of runs of one model.

    Raises DataError for curves that cannot be fitted, RecipeError for a law that does not exist.
    """
    if law is not None and law not in FITS:
        raise RecipeError(
            f"there is no law {law!r} of curves", where="--law", fix=f"one of {', '.join(FITS)}"
        )
    known = [thinned(c) for c in checked(curves)]
    short = [c.name for c in known if len(c.at) < _LEAST_POINTS]
    if short or not known:
        why = f"{', '.join(short)} has fewer than {_LEAST_POINTS} losses after its warm-up"
        raise DataError("the curves cannot be fitted", why=why if short else "there is none")
    fits = [FITS[law]] if law else list(FITS.values())
    return FittedCurves(
        tuple(known), tuple(fit(known) for fit in fits), tuple(_held_out(known, fit) for fit in fits)
    )


def _held_out(curves: Sequence[Curve], fit: Fit) -> tuple[np.ndarray, ...]:
    """Relative errors along the second half of each curve, from a fit to the others; of one, to its begin."""
    if len(curves) == 1:
        whole = curves[0]
        return (_errors(fit([whole.until(whole.at[int(_SPLIT * len(whole.at))])]), whole),)
    return tuple(_errors(fit([c for c in curves if c is not out]), out) for out in curves)


def _errors(law: Annealing | MultiPower, curve: Curve) -> np.ndarray:
    late = curve.at >= (curve.at[0] + curve.at[-1]) / 2
    return (law.loss(sums(curve, curve.at[late])) / curve.loss[late]) - 1


def _rms(errors: Sequence[np.ndarray]) -> float:
    """Root mean square over curves, of each its mean or its end, whichever is further off."""
    return float(np.sqrt(np.mean([max(np.mean(e**2), e[-1] ** 2) for e in errors])))


def _result(fit: Annealing | MultiPower, path: np.ndarray, weight: float, error: float) -> CurveResult:
    constants = {k: v for k, v in asdict(fit).items() if k != "name"}
    return CurveResult(fit.name, constants, float(path[-1]), float(weight), float(error))


def _warnings(known: Sequence[Curve], target: Curve) -> tuple[str, ...]:
    found = []
    area = max(float(sums(c, c.at[-1:]).area[-1]) for c in known)
    ratio = float(sums(target, target.at[-1:]).area[-1]) / area
    if ratio > 3:
        found.append(f"the schedule sums {ratio:.1f} times as much learning rate as any that was fitted")
    lowest = min(float(c.lr[-1] / c.lr.max()) for c in known)
    if target.lr[-1] / target.lr.max() < 0.5 * lowest and lowest > 0.3:
        found.append("no fitted schedule decays as far as this one: what a decay gains is a guess")
    peaks = [float(c.lr.max()) for c in known]
    if not min(peaks) * 0.67 <= float(target.lr.max()) <= max(peaks) * 1.5:
        found.append("the peak learning rate is not one of those that were fitted")
    return tuple(found)
