"""Laws of loss curves that know the learning rate: from some schedules they predict others. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from growlm.scaling.curves import Curve, Sums, sums
from growlm.scaling.power_sum import nonnegative

_TINY = 1e-300


@dataclass(frozen=True)
class Annealing:
    """L = L0 + A S1^-alpha - C S2: S2 sums the falls of the rate, each over the steps since, with a memory of
    `memory` steps (Tissue et al., 2408.11029, equation 1; their lambda is 1 - 1/memory)."""

    L0: float
    A: float
    C: float
    alpha: float
    memory: float
    name: str = "annealing"

    def loss(self, s: Sums) -> np.ndarray:
        """(P,) losses."""
        return self.L0 + self.A * s.area**-self.alpha - self.C * momentum_area(s, self.memory)


@dataclass(frozen=True)
class MultiPower:
    """L = L0 + A S1^-alpha - B sum_k fall_k G(after_k^-gamma swept_k), G(x) = 1 - (1 + C x)^-beta
    (Luo et al., 2503.12811, equations 3 and 4)."""

    L0: float
    A: float
    B: float
    C: float
    alpha: float
    beta: float
    gamma: float
    name: str = "multi-power"

    def loss(self, s: Sums) -> np.ndarray:
        """(P,) losses."""
        gain = multi_power_gain(s, self.C, self.beta, self.gamma)
        return self.L0 + self.A * s.area**-self.alpha - self.B * gain


def momentum_area(s: Sums, memory: float) -> np.ndarray:
    """(P,) S2."""
    return memory * (-np.expm1(-s.since / memory)) @ s.fall


def multi_power_gain(s: Sums, c: float, beta: float, gamma: float) -> np.ndarray:
    """(P,) the loss that the falls have taken away, over B."""
    x = s.swept * np.maximum(s.after, 1e-6 * s.after.max(initial=1e-9)) ** -gamma
    return (-np.expm1(-beta * np.log1p(c * x))) @ s.fall


def fit_annealing(curves: Sequence[Curve]) -> Annealing:
    """Fit by variable projection: a grid over (alpha, memory), refined; L0, A, C >= 0 by least squares."""
    parts = [sums(c, c.at) for c in curves]
    loss, w = np.concatenate([c.loss for c in curves]), _even(curves)
    area = np.concatenate([s.area for s in parts])
    longest = max(float(c.at[-1]) for c in curves)
    alphas, memories = np.geomspace(0.05, 1.5, 14), longest * np.geomspace(3e-4, 0.3, 10)

    def best(alphas: np.ndarray, memories: np.ndarray) -> tuple[np.ndarray, int, int]:
        cut = [np.concatenate([momentum_area(s, m) for s in parts]) for m in memories]
        power = [(area / area.mean()) ** -alpha for alpha in alphas]
        grid = list(product(range(len(alphas)), range(len(memories))))
        basis = np.stack([np.column_stack([np.ones_like(area), power[i], -cut[j]]) for i, j in grid])
        found, cost = robust(basis, loss, w)
        at = int(cost.argmin())
        return found[at], *grid[at]

    for _ in range(3):
        _, i, j = best(alphas, memories)
        alphas = _around(alphas, i, 0.02, 3.0)
        memories = _around(memories, j, longest * 1e-5, longest * 2)
    (l0, a, c), i, j = best(alphas, memories)
    alpha = float(alphas[i])
    return Annealing(float(l0), float(a * area.mean() ** alpha), float(c), alpha, float(memories[j]))


def fit_multi_power(curves: Sequence[Curve]) -> MultiPower:
    """Fit by variable projection: (alpha, C, beta, gamma) by least squares, L0, A, B >= 0 inside."""
    from scipy.optimize import least_squares

    parts = [sums(c, c.at) for c in curves]
    loss, w = np.concatenate([c.loss for c in curves]), _even(curves)
    area = np.concatenate([s.area for s in parts])
    peak = max(float(c.lr.max()) for c in curves)
    swept = np.concatenate([s.swept[s.swept > 0] for s in parts])
    middle = float(np.median(swept)) if len(swept) else 1.0

    def inner(q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        alpha, c, beta, gamma = np.exp(q[0]), np.exp(q[1]) / middle, np.exp(q[2]), np.exp(q[3])
        gain = np.concatenate([multi_power_gain(s, c * peak**gamma, beta, gamma) for s in parts])
        basis = np.column_stack([np.ones_like(area), (area / area.mean()) ** -alpha, -gain])
        found, _ = robust(basis[None], loss, w)
        return found[0], (basis @ found[0] - loss) / loss, np.array([alpha, c * peak**gamma, beta, gamma])

    def residuals(q: np.ndarray) -> np.ndarray:
        return inner(q)[1] * np.sqrt(w) * 1e3

    bounds = (np.log([0.03, 1e-3, 0.1, 0.1]), np.log([3.0, 1e3, 2.0, 1.0]))
    start = np.log([0.5, 3.0, 0.5, 0.5])
    solved = least_squares(residuals, start, bounds=bounds, loss="soft_l1", max_nfev=25, diff_step=1e-3)
    (l0, a, b), _, (alpha, c, beta, gamma) = inner(solved.x)
    a *= area.mean() ** alpha
    l0, a, b, c, alpha, beta, gamma = map(float, (l0, a, b, c, alpha, beta, gamma))
    return MultiPower(l0, a, b, c, alpha, beta, gamma)


Fit = Callable[[Sequence[Curve]], Annealing | MultiPower]
FITS: dict[str, Fit] = {
    "annealing": fit_annealing,
    "multi-power": fit_multi_power,
}


def robust(basis: np.ndarray, loss: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative coefficients (G, K) of bases (G, M, K) and relative Huber costs (G,), one reweighting."""
    scaled = basis / loss[None, :, None]
    found, cost = nonnegative(scaled, np.ones(len(loss)), w)
    r = (scaled[int(cost.argmin())] @ found[int(cost.argmin())]) - 1
    limit = 1.345 * 1.4826 * np.median(np.abs(r)) + 1e-6
    return nonnegative(scaled, np.ones(len(loss)), w * np.minimum(1.0, limit / np.maximum(np.abs(r), _TINY)))


def _even(curves: Sequence[Curve]) -> np.ndarray:
    """(M,) weights of all measurements: every curve counts the same, their mean is 1."""
    w = np.concatenate([np.full(len(c.at), 1 / len(c.at)) for c in curves])
    return w * len(w) / w.sum()


def _around(grid: np.ndarray, i: int, low: float, high: float) -> np.ndarray:
    """A finer grid around entry i."""
    ratio = grid[1] / grid[0]
    return np.clip(grid[i] * np.geomspace(1 / ratio, ratio, 7), low, high)
