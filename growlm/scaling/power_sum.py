"""One fit for every law that is a floor plus powers: L = E + sum_j A_j x_j^-e_j. NumPy only.

Chinchilla has two terms and two exponents, the over-training form of Gadre et al. two terms and one exponent,
a law of one variable one term. Logarithms are centred, so that A_j is the size of a term in the middle of the
data: as published, A and e of the same term are almost the same direction (condition number 1e11, not 1e1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

LEAST_EXPONENT, GREATEST_EXPONENT = 0.02, 2.0
PRIOR_EXPONENT, PRIOR_SPREAD = 0.35, 0.7
"""Loss laws of language models have exponents around 0.35 (2203.15556, 2404.10102, 2403.08540), most of them
within a factor of e^0.7; this decides only where the data say little."""
PUBLISHED_DELTA = 1e-3
"""Huber's threshold on log loss (2203.15556, section 3.3)."""
_TINY = 1e-12
_MOST_STEPS = 200


@dataclass(frozen=True)
class Fit:
    """Parameters of B fits of one form, and what they were fitted in.

    theta: (B, 1+J+K): log E, log A_j at the centre, log of the exponents. centre: (J,) mean logs.
    of_term: which exponent each term has. sigma: robust standard deviation of log-loss residuals.
    """

    theta: np.ndarray
    centre: np.ndarray
    of_term: tuple[int, ...]
    sigma: float

    @property
    def floor(self) -> float:
        """E of the first fit."""
        return float(np.exp(self.theta[0, 0]))

    @property
    def exponents(self) -> np.ndarray:
        """(J,) exponent of every term of the first fit."""
        j = len(self.of_term)
        return np.exp(self.theta[0, 1 + j :])[list(self.of_term)]

    @property
    def scales(self) -> np.ndarray:
        """(J,) A_j of the first fit, in A x^-e without centring."""
        j = len(self.of_term)
        return np.exp(self.theta[0, 1 : 1 + j] + self.exponents * self.centre)

    def log_loss(self, x: np.ndarray) -> np.ndarray:
        """(B, M) log of the loss at logarithms `x` (M, J)."""
        return _model(self.theta, np.atleast_2d(x) - self.centre, self.of_term)[0]


def fit_powers(
    x: np.ndarray,
    loss: np.ndarray,
    of_term: Sequence[int],
    *,
    weights: np.ndarray | None = None,
    delta: float | None = None,
    prior: bool = True,
    start: Fit | None = None,
    tolerance: float = 1e-10,
) -> Fit:
    """Fit E, A_j >= 0 and exponents > 0 to `loss` (M,) at logarithms `x` (M, J), by Huber's loss on log L.

    weights: (B, M) for B fits at once (a bootstrap). delta: Huber's threshold; None: 1.345 robust standard
    deviations of the residuals, so that clean data are fitted by least squares. prior: pull the exponents to
    PRIOR_EXPONENT as one more observation would. start: where to begin; without it a grid over the
    exponents, E and A_j by non-negative least squares for each (variable projection). tolerance: of the
    relative cost.
    """
    of_term = tuple(of_term)
    centre = x.mean(axis=0) if start is None else start.centre
    z, y = x - centre, np.log(loss)
    w = np.ones((1, len(y))) if weights is None else weights
    if start is None:
        theta, sigma = _project(z, loss, of_term, w.mean(axis=0)), None
        theta, cost = _descend(theta, z, y, w.mean(axis=0, keepdims=True), of_term, delta or 0.05, 0.0, 1e-5)
        theta = theta[[int(cost.argmin())]]
        for _ in range(2):
            sigma = _spread(_model(theta, z, of_term)[0][0] - y, theta.shape[1])
            limit = delta or 1.345 * sigma
            pull = sigma if prior else 0.0
            theta, _ = _descend(theta, z, y, w.mean(axis=0, keepdims=True), of_term, limit, pull, tolerance)
        sigma = _spread(_model(theta, z, of_term)[0][0] - y, theta.shape[1])
    else:
        theta, sigma = start.theta[:1], start.sigma
    if len(w) > 1 or start is not None:
        begin = np.repeat(theta, len(w), axis=0)
        limit, pull = delta or 1.345 * sigma, sigma if prior else 0.0
        theta, _ = _descend(begin, z, y, w, of_term, limit, pull, max(tolerance, 1e-5))
    return Fit(theta, centre, of_term, float(sigma))


def _model(theta: np.ndarray, z: np.ndarray, of_term: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(B, M) log loss and (B, M, P) its derivatives by theta (B, P), at centred logarithms z (M, J)."""
    j = len(of_term)
    slopes = np.exp(theta[:, 1 + j :])[:, list(of_term)]
    floor = np.repeat(theta[:, None, :1], len(z), axis=1)
    logs = np.concatenate([floor, theta[:, None, 1 : 1 + j] - slopes[:, None, :] * z[None]], axis=2)
    top = logs.max(axis=2, keepdims=True)
    shares = np.exp(logs - top)
    total = shares.sum(axis=2, keepdims=True)
    shares /= total
    by_slope = np.zeros((len(theta), len(z), theta.shape[1] - 1 - j))
    for term, k in enumerate(of_term):
        by_slope[:, :, k] -= shares[:, :, 1 + term] * slopes[:, None, term] * z[None, :, term]
    return (top + np.log(total))[:, :, 0], np.concatenate([shares, by_slope], axis=2)


def _descend(
    theta: np.ndarray,
    z: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    of_term: tuple[int, ...],
    delta: float,
    pull: float,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on Huber's loss, B problems at once: (B, P) parameters and (B,) costs."""
    j, theta = len(of_term), theta.copy()
    slopes = slice(1 + j, theta.shape[1])
    strength = (pull / PRIOR_SPREAD) ** 2

    def state(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        value, jacobian = _model(t, z, of_term)
        r = value - y
        size = np.abs(r)
        huber = np.where(size <= delta, r**2, 2 * delta * size - delta**2)
        away = t[:, slopes] - np.log(PRIOR_EXPONENT)
        return (w * huber).sum(axis=1) + strength * (away**2).sum(axis=1), r, jacobian

    cost, r, jacobian = state(theta)
    damping = np.full(len(theta), 1e-2)
    eye = np.eye(theta.shape[1])
    for _ in range(_MOST_STEPS):
        held = w * np.minimum(1.0, delta / np.maximum(np.abs(r), _TINY))
        weighted = jacobian * held[:, :, None]
        hessian = weighted.transpose(0, 2, 1) @ jacobian
        gradient = (weighted * r[:, :, None]).sum(axis=1)
        hessian[:, range(1 + j, theta.shape[1]), range(1 + j, theta.shape[1])] += strength
        gradient[:, slopes] += strength * (theta[:, slopes] - np.log(PRIOR_EXPONENT))
        diagonal = hessian.diagonal(axis1=1, axis2=2)
        ridge = damping[:, None] * diagonal + _TINY * (1 + diagonal.max(axis=1, keepdims=True))
        move = np.linalg.solve(hessian + ridge[:, :, None] * eye, gradient[:, :, None])[:, :, 0]
        tried = theta - np.clip(move, -1.0, 1.0)
        tried[:, slopes] = np.clip(tried[:, slopes], np.log(LEAST_EXPONENT), np.log(GREATEST_EXPONENT))
        tried[:, : 1 + j] = np.maximum(tried[:, : 1 + j], -20.0)
        new_cost, new_r, new_jacobian = state(tried)
        better = new_cost < cost
        gain = np.max(np.where(better, (cost - new_cost) / (cost + _TINY), 0.0))
        theta = np.where(better[:, None], tried, theta)
        r = np.where(better[:, None], new_r, r)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        cost = np.where(better, new_cost, cost)
        damping = np.clip(np.where(better, damping / 3, damping * 5), 1e-9, 1e9)
        if (not better.any() and damping.min() >= 1e8) or (better.any() and gain < tolerance):
            break
    return theta, cost


def _project(z: np.ndarray, loss: np.ndarray, of_term: tuple[int, ...], w: np.ndarray) -> np.ndarray:
    """(S, P) the best starts of a grid over the exponents; E and A_j by non-negative least squares."""
    exponents = max(of_term) + 1
    grid = np.geomspace(0.05, 1.2, 40 if exponents == 1 else 12)
    points = np.array(list(product(grid, repeat=exponents)))
    basis = np.exp(-points[:, None, list(of_term)] * z[None])
    basis = np.concatenate([np.ones((*basis.shape[:2], 1)), basis], axis=2) / loss[None, :, None]
    coefficients, cost = nonnegative(basis, np.ones(len(loss)), w)
    best = np.argsort(cost)[:: max(1, len(cost) // 60)][:4]
    logs = np.log(np.maximum(coefficients[best], 1e-4))
    return np.concatenate([logs, np.log(points[best])], axis=1)


def nonnegative(basis: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative weighted least squares, G problems at once: (G, K) coefficients and (G,) costs.

    basis: (G, M, K), y and w: (M,). With few columns every set of them can be tried: the best feasible one
    is the solution.
    """
    g, _, k = basis.shape
    weighted = basis * w[None, :, None]
    gram = weighted.transpose(0, 2, 1) @ basis
    moment = weighted.transpose(0, 2, 1) @ y
    best = np.zeros((g, k))
    cost = np.full(g, float(w @ y**2))
    for chosen in product((False, True), repeat=k):
        at = np.flatnonzero(chosen)
        if not len(at):
            continue
        part = gram[:, at[:, None], at]
        ridge = 1e-12 * part.diagonal(axis1=1, axis2=2).max(axis=1)[:, None, None] + 1e-300
        ridge = ridge * np.eye(len(at))
        found = np.linalg.solve(part + ridge, moment[:, at, None])[:, :, 0]
        here = float(w @ y**2) - (found * moment[:, at]).sum(axis=1)
        better = (found >= 0).all(axis=1) & (here < cost)
        cost = np.where(better, here, cost)
        full = np.zeros((g, k))
        full[:, at] = found
        best = np.where(better[:, None], full, best)
    return best, cost


def _spread(residuals: np.ndarray, parameters: int) -> float:
    """Robust standard deviation of residuals (from their median size), for the degrees of freedom left."""
    m = len(residuals)
    by_median = 1.4826 * float(np.median(np.abs(residuals)))
    by_squares = float(np.sqrt(np.mean(residuals**2)))
    base = min(max(by_median, 0.3 * by_squares), by_squares) if m >= 10 else by_squares
    return max(base * np.sqrt(m / max(m - parameters, 1)), 1e-6)
