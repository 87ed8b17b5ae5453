"""Tables of losses for tests: made by a known law, or published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from growlm.scaling.curves import Curve
from growlm.scaling.table import Table, read_table, table_of

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "loss-tables"
needs_tables = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the published loss tables")

TRUE = {"E": 1.7, "A": 420.0, "alpha": 0.34, "B": 900.0, "beta": 0.31}


def true_loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return TRUE["E"] + TRUE["A"] * n ** -TRUE["alpha"] + TRUE["B"] * d ** -TRUE["beta"]


def grid_table(noise: float = 0.0, seed: int = 0, sizes: int = 7, lengths: int = 6) -> Table:
    """sizes x lengths runs of the true law with relative noise."""
    n, d = np.meshgrid(np.geomspace(2e7, 1e9, sizes), np.geomspace(1e9, 5e10, lengths))
    n, d = n.ravel(), d.ravel()
    loss = true_loss(n, d) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return table_of({"n": n, "d": d, "loss": loss}, np.array([f"r{i}" for i in range(len(n))]))


def sizes_table(noise: float = 0.0, seed: int = 0, sizes: int = 8) -> tuple[Table, float]:
    """Runs of one length, and the true loss of a model 10 times the largest."""
    n = np.geomspace(1e7, 3e8, sizes)
    loss = 2.5 + 300 * n**-0.35
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(sizes))
    return table_of({"n": n, "loss": loss}, np.full(sizes, "t")), 2.5 + 300 * 3e9**-0.35


def published_curve(size: str, name: str) -> Curve:
    t = read_table(PUBLISHED / "lr-curves" / size / f"{name}.csv")
    return Curve(name, t["step"], t["lr"], t["step"], t["loss"])
