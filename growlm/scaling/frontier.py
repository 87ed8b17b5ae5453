"""The compute frontier of a table: the lowest loss at each level of compute, where a size is best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from growlm.scaling.table import Table

_WIDTH = np.log(2.0)
"""A level is what lies within a factor of two."""
_NEAR = np.log(2.5)
_LEVELS = 5


@dataclass(frozen=True)
class Optima:
    """Best size and loss at levels of compute, (L,) each; `n` is None for a table that has no sizes."""

    c: np.ndarray
    loss: np.ndarray
    n: np.ndarray | None

    def is_near(self, n: float, c: float) -> bool:
        """Whether a model of `n` parameters is about the best for `c` FLOPs (N_opt ~ C^a)."""
        if self.n is None:
            return True
        slope, offset = np.polyfit(np.log(self.c), np.log(self.n), 1)
        return bool(abs(np.log(n) - (slope * np.log(c) + offset)) <= _NEAR)


def compute_optima(table: Table) -> Optima | None:
    """Per level of compute the bottom of a parabola in log N (2203.15556, approach 2).

    Without sizes, or where sizes and tokens grow in proportion, all rows are the frontier. None with fewer
    than five levels.
    """
    c, loss = np.log(table["c"]), table["loss"]
    if "n" not in table or _one_ratio(table):
        return Optima(table["c"], loss, table.columns.get("n")) if len(np.unique(c)) >= _LEVELS else None
    n, found = np.log(table["n"]), []
    for level in np.arange(c.min() + _WIDTH / 2, c.max() + _WIDTH / 2, _WIDTH):
        near = np.abs(c - level) <= _WIDTH / 2
        if near.sum() < 5 or np.ptp(n[near]) < _WIDTH:
            continue
        middle = n[near].mean()
        z = n[near] - middle
        basis = np.column_stack([np.ones(near.sum()), z, z**2, c[near] - level])
        q = np.linalg.lstsq(basis, np.log(loss[near]), rcond=None)[0]
        best = -q[1] / (2 * q[2]) if q[2] > 0 else np.inf
        if z.min() <= best <= z.max():
            found.append((level, q[0] - q[1] ** 2 / (4 * q[2]), best + middle))
    if len(found) < _LEVELS:
        return None
    level, log_loss, size = np.exp(np.array(found)).T
    return Optima(level, log_loss, size)


def _one_ratio(table: Table) -> bool:
    return float(np.ptp(np.log(table["d"] / table["n"]))) < _WIDTH / 2 if "d" in table else True
