"""Fits find the law that made the data, and the published constants of published tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, nnls
from scipy.special import logsumexp

from growlm.scaling.power_sum import PUBLISHED_DELTA, fit_powers, nonnegative
from growlm.scaling.screen import screened
from growlm.scaling.table import Table, read_table
from tests.scaling.tables import PUBLISHED, TRUE, grid_table, needs_tables, sizes_table


def logs(table: Table) -> np.ndarray:
    return np.log(np.column_stack([table["n"], table["d"]]))


@pytest.mark.parametrize("delta", [None, PUBLISHED_DELTA])
def test_the_law_of_exact_losses_is_found(delta: float | None) -> None:
    table = grid_table()
    fit = fit_powers(logs(table), table["loss"], (0, 1), delta=delta, prior=False)
    assert fit.floor == pytest.approx(TRUE["E"], abs=2e-3)
    assert fit.exponents == pytest.approx([TRUE["alpha"], TRUE["beta"]], abs=2e-3)
    assert fit.scales == pytest.approx([TRUE["A"], TRUE["B"]], rel=0.05)


def test_one_exponent_for_two_terms_is_the_over_training_form() -> None:
    """Gadre et al. (2403.08540): L = E + (a M^eta + b M^-eta) C^-eta with C = 6 N D, M = D / N."""
    table = grid_table()
    n, d = table["n"], table["d"]
    e, a, b, eta = 1.8, 40.0, 90.0, 0.14
    loss = e + (a * (d / n) ** eta + b * (d / n) ** -eta) * (6 * n * d) ** -eta
    fit = fit_powers(logs(table), loss, (0, 0), prior=False)
    assert fit.floor == pytest.approx(e, abs=5e-3)
    assert fit.exponents == pytest.approx([2 * eta] * 2, abs=3e-3)


def test_a_size_law_and_weights() -> None:
    table, _ = sizes_table()
    x, loss = np.log(table["n"])[:, None], table["loss"].copy()
    loss[-1] *= 1.3
    one = np.ones(len(loss))
    one[-1] = 0.0
    free = fit_powers(x, loss, (0,), weights=one[None], prior=False)
    assert (free.floor, *free.exponents) == pytest.approx((2.5, 0.35), abs=5e-3)


def test_it_is_the_minimum_that_a_general_optimizer_finds() -> None:
    """Huber's loss on logarithms through LSE, as 2203.15556 (section D.3) minimises it."""
    table = grid_table(noise=0.01, seed=3)
    x, y = logs(table), np.log(table["loss"])
    fit = fit_powers(x, table["loss"], (0, 1), delta=PUBLISHED_DELTA, prior=False)

    def cost(q: np.ndarray) -> float:
        terms = [np.full(len(y), q[0]), q[1] - q[3] * (x[:, 0] - 18), q[2] - q[4] * (x[:, 1] - 22)]
        r = np.abs(logsumexp(terms, axis=0) - y)
        return float(np.where(r < 1e-3, r**2 / 2, 1e-3 * (r - 5e-4)).sum()) * 1e3

    mine = [np.log(fit.floor), *(np.log(fit.scales) - fit.exponents * [18, 22]), *fit.exponents]
    found = minimize(
        cost, mine, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-12, "xatol": 1e-9}
    )
    assert cost(np.array(mine)) <= found.fun * 1.001


def test_non_negative_least_squares_is_scipys() -> None:
    rng = np.random.default_rng(0)
    basis, y = rng.standard_normal((20, 12, 3)), rng.standard_normal(12)
    found, cost = nonnegative(basis, y, np.ones(12))
    for b, f, c in zip(basis, found, cost, strict=True):
        expected, norm = nnls(b, y)
        assert f == pytest.approx(expected, abs=1e-6)
        assert c == pytest.approx(norm**2, rel=1e-6)


def chinchilla_rows() -> Table:
    return read_table(PUBLISHED / "chinchilla-reconstructed.csv")


@needs_tables
@pytest.mark.parametrize("protocol", ["published", "automatic"])
def test_the_published_refit_of_chinchilla(protocol: str) -> None:
    """2404.10102: 240 of the 245 points. Left to itself the screen leaves out the same five."""
    table = chinchilla_rows()
    if protocol == "published":
        table = table.where(np.sort(np.argsort(-table["loss"])[5:]))
    table = screened(table)
    assert len(table) == 240
    fit = fit_powers(logs(table), table["loss"], (0, 1), delta=PUBLISHED_DELTA, prior=False)
    assert fit.floor == pytest.approx(1.8172, abs=0.005)
    assert fit.exponents == pytest.approx([0.3478, 0.3658], abs=0.003)


def test_gross_outliers_are_named_and_ordinary_noise_is_not() -> None:
    table = grid_table(noise=0.01, seed=1)
    assert len(screened(table)) == len(table)
    table["loss"][[3, 20]] *= 1.5
    kept = screened(table)
    assert len(kept) == len(table) - 2
    assert "2 rows are left out" in kept.notes[-1]
