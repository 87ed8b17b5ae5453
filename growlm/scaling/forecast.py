"""Where the loss of a run under way will end: a law of its learning rates, fitted to what it has done.

    L(s) = L0 + A (S1(s) + s0)^-alpha - C S2(s)

S1 sums the learning rates and S2 their falls over the steps since (Tissue et al., 2408.11029, equation 1);
s0 is what the weights knew at the start, for stages that grew out of a trained model. alpha, s0 and the
memory of S2 are averaged over a grid by how well they fit (L0, A, C in closed form for each): what the losses
so far leave open, such as the gain of a decay that has not begun, widens the band by itself. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from growlm.scaling.curve_laws import momentum_area
from growlm.scaling.curves import Curve, Sums, sums, thinned

LEAST_POINTS = 12
LEVEL_SIGMAS = 1.645
"""Half a 90 % band."""
_ALPHAS = np.geomspace(0.1, 1.6, 9)
_USUAL_ALPHA, _ALPHA_SPREAD = 0.45, 0.5
_STARTS = np.array([0.0, 0.02, 0.06, 0.2, 0.6, 2.0])
"""s0 as a share of the stage's sum of learning rates."""
_MEMORIES = np.geomspace(0.002, 0.2, 6)
"""As a share of the stage's steps."""
_GAIN, _GAIN_SPREAD = 0.03, 0.025
"""A fall of the rate from its peak to zero takes 1 to 5 % off the loss (2405.18392, 2408.11029)."""
_SEEDS, _LACK = 5e-4, 3e-3
"""Shares of the loss: by which two runs of one recipe differ; by which a law is off when the sum of learning
rates has grown e-fold."""
_PATH = 25
_EARLY = 0.15
"""The first losses of a stage follow no power law: this share of the steps so far is left out."""


@dataclass(frozen=True)
class Forecast:
    """Expected loss at the end with its 90 % band, and the band on the way there: (Q,) each."""

    loss: float
    low: float
    high: float
    at: np.ndarray
    path: np.ndarray
    half: np.ndarray

    def outside(self, at: float, loss: float, noise: float = 0.0) -> float:
        """By how many half widths of the band `loss`, measured around step `at`, lies above (+) or below (-)
        its middle. `noise`: half width of the band of that measurement."""
        middle, half = np.interp(at, self.at, self.path), np.interp(at, self.at, self.half)
        return float((loss - middle) / np.hypot(half, noise))


def forecast(curve: Curve) -> Forecast | None:
    """The forecast for the last step of the schedule of `curve`; None with too few losses for one.

    `curve` is one stage: its whole schedule, its steps counted from its start, its losses so far, those of
    warm-up, mask ramp and skipped steps left out.
    """
    if len(curve.at) == 0:
        return None
    now, end = float(curve.at[-1]), float(curve.step[-1])
    used = curve.at >= curve.at[0] + _EARLY * (now - curve.at[0])
    curve = thinned(Curve(curve.name, curve.step, curve.lr, curve.at[used], curve.loss[used]))
    if len(curve.at) < LEAST_POINTS:
        return None
    ahead = np.linspace(now, end, _PATH)
    path, variance, noise = _average(curve, ahead)
    variance = variance + noise**2 / 4 + _lack_of_fit(curve, ahead)
    half = LEVEL_SIGMAS * np.sqrt(variance)
    last = float(path[-1])
    return Forecast(last, last - float(half[-1]), last + float(half[-1]), ahead, path, half)


def _lack_of_fit(curve: Curve, ahead: np.ndarray) -> np.ndarray:
    """(Q,) variance because the law is not the truth: a share of the loss that grows with how far ahead it
    looks, or what a forecast made at 60 % of the way so far is off by now, if that is more."""
    area = sums(curve, np.concatenate([curve.at, ahead])).area
    far = np.log(area[len(curve.at) :] / area[len(curve.at) - 1])
    level = float(curve.loss[-1])
    variance = (_SEEDS * level) ** 2 + (_LACK * level * far) ** 2
    split = int(0.6 * len(curve.at))
    if split < LEAST_POINTS:
        return 4 * variance
    before = Curve(curve.name, curve.step, curve.lr, curve.at[:split], curve.loss[:split])
    newest = slice(int(0.9 * len(curve.at)), None)
    path, own, noise = _average(before, curve.at[newest])
    count = len(curve.at[newest])
    error = float(np.mean(path - curve.loss[newest]))
    excess = max(0.0, error**2 - float(own.mean()) - noise**2 / count)
    reached = float(np.log(area[len(curve.at) - 1] / area[split - 1]))
    return np.maximum(variance, excess * np.clip(far / reached, 0.0, 2.0) ** 2)


def _average(curve: Curve, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(Q,) expected loss at steps `at`, (Q,) its variance, and the noise of one point of the curve."""
    both = sums(curve, np.concatenate([curve.at, at]))
    p, peak, steps = len(curve.at), float(curve.lr.max()), float(curve.step[-1])
    whole = float(both.area.max())
    grid = list(product(_ALPHAS, _STARTS * whole, _MEMORIES * steps))
    basis = np.stack([_basis(both, *g) for g in grid])
    level = float(curve.loss[-1])
    gains = np.array([memory * peak / level for _, _, memory in grid])
    usual = ((np.log([g[0] for g in grid]) - np.log(_USUAL_ALPHA)) / _ALPHA_SPREAD) ** 2
    noise = _roughness(curve.loss)
    found, covariance, cost = _solve(basis[:, :p], curve.loss, gains, noise)
    best = int(np.argmin(cost + usual))
    residual = basis[best, :p] @ found[best] - curve.loss
    noise = max(noise, float(np.sqrt(np.mean(residual**2) * p / max(p - 5, 1))))
    found, covariance, cost = _solve(basis[:, :p], curve.loss, gains, noise)
    independent = _independent(residual)
    score = (cost - cost.min()) * independent + usual
    weight = np.exp(-0.5 * (score - score.min()))
    weight /= weight.sum()
    ahead = basis[:, p:]
    means = np.einsum("gqk,gk->gq", ahead, found)
    own = np.einsum("gqk,gkl,gql->gq", ahead, covariance, ahead) / independent
    path = weight @ means
    return path, weight @ (own + (means - path) ** 2), noise


def _basis(s: Sums, alpha: float, start: float, memory: float) -> np.ndarray:
    """(P, 3) columns of L0, A and C; the second is 1 at the last step, which keeps A and L0 apart."""
    area = s.area + start
    return np.column_stack([np.ones_like(area), (area / area[-1]) ** -alpha, -momentum_area(s, memory)])


def _solve(
    basis: np.ndarray, loss: np.ndarray, gains: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares with the usual gain as one more observation: (G, 3), their (G, 3, 3) covariance and the
    (G,) costs in units of the noise. Coefficients below zero cost as much as leaving them out does."""
    gram = basis.transpose(0, 2, 1) @ basis / noise**2
    moment = basis.transpose(0, 2, 1) @ loss / noise**2
    gram[:, 2, 2] += (gains / _GAIN_SPREAD) ** 2
    moment[:, 2] += gains * _GAIN / _GAIN_SPREAD**2
    scale = np.sqrt(gram.diagonal(axis1=1, axis2=2)) + 1e-12
    scaled = gram / scale[:, :, None] / scale[:, None, :] + 1e-10 * np.eye(3)
    inverse = np.linalg.inv(scaled) / scale[:, :, None] / scale[:, None, :]
    found = (inverse @ moment[:, :, None])[:, :, 0]
    residual = np.einsum("gpk,gk->gp", basis, found) - loss
    away = (gains * found[:, 2] - _GAIN) / _GAIN_SPREAD
    cost = (residual**2).sum(axis=1) / noise**2 + away**2
    return found, inverse, cost + 1e3 * (found < 0).any(axis=1)


def _roughness(loss: np.ndarray) -> float:
    """Standard deviation of a point around its neighbours, from second differences."""
    bend = np.diff(loss, 2)
    return max(1.4826 * float(np.median(np.abs(bend))) / np.sqrt(6), 1e-4 * float(loss.mean()))


def _independent(residual: np.ndarray) -> float:
    """Share of the points that are independent, from the correlation of neighbours."""
    r = residual - residual.mean()
    rho = float((r[1:] * r[:-1]).sum() / max(float((r**2).sum()), 1e-30))
    rho = min(max(rho, 0.0), 0.95)
    return (1 - rho) / (1 + rho)
