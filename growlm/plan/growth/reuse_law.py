"""How a second stage learns after a first one: the reuse law of Liew and Kato (2510.06548). No torch.

    L(D1, D2) = E + A D1^-a1 D2^(-a2 + a3 ln D1)

for one pair of sizes: the more the small model was trained (D1), the more slowly the large one falls (D2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from growlm.errors import RecipeError


@dataclass(frozen=True)
class ReuseLaw:
    """The constants; tokens are counted in units of `unit`, so that the logarithms stay small."""

    E: float
    A: float
    a1: float
    a2: float
    a3: float
    unit: float

    def loss(self, first: float, second: float) -> float:
        """After `first` tokens of the small and `second` of the large model."""
        x, y = math.log(first / self.unit), math.log(second / self.unit)
        return self.E + self.A * math.exp(-self.a1 * x + (-self.a2 + self.a3 * x) * y)

    def exponent(self, first: float) -> float:
        """With which power of its tokens the large model's loss falls."""
        return self.a2 - self.a3 * math.log(first / self.unit)


def fit_reuse(points: Sequence[tuple[float, float, float]]) -> ReuseLaw:
    """From (first tokens, second tokens, loss) of two or more pilots that grew after different tokens.

    For each E the rest is linear in logarithms; E is searched below the smallest loss. Raises RecipeError
    if the pilots do not determine it.
    """
    if len({first for first, _, _ in points}) < 2 or len(points) < 6:
        raise RecipeError(
            "the reuse law needs two pilots that grew after different numbers of tokens, with three losses",
            where="--pilot",
        )
    table = np.array(points, dtype=float)
    unit = float(np.exp(np.log(table[:, :2]).mean()))
    x, y = np.log(table[:, 0] / unit), np.log(table[:, 1] / unit)
    matrix = np.stack([np.ones_like(x), -x, -y, x * y], axis=1)
    lowest = float(table[:, 2].min())

    def residual(e: float) -> tuple[float, np.ndarray]:
        target = np.log(table[:, 2] - e)
        found, *_ = np.linalg.lstsq(matrix, target, rcond=None)
        return float((((np.exp(matrix @ found) + e) - table[:, 2]) ** 2).sum()), found

    low, high = 0.0, lowest * (1 - 1e-6)
    for _ in range(12):
        tried = np.linspace(low, high, 41)
        k = int(np.argmin([residual(float(e))[0] for e in tried]))
        low, high = float(tried[max(0, k - 1)]), float(tried[min(len(tried) - 1, k + 1)])
    e = (low + high) / 2
    log_a, a1, a2, a3 = residual(e)[1]
    return ReuseLaw(e, math.exp(log_a), float(a1), float(a2), float(a3), unit)
