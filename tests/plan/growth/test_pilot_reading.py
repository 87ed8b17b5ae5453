"""Pilots: what was carried over is found again in losses made by a law, and wrong runs are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from growlm.errors import RecipeError
from growlm.plan.growth.pilot_reading import curves_of, read_pilot, read_pilots
from growlm.plan.growth.reuse_law import ReuseLaw, fit_reuse
from growlm.plan.growth.theory import worth
from growlm.scaling.laws import Chinchilla

LAW = Chinchilla(E=1.8, A=480, B=900, alpha=0.35, beta=0.33)
SMALL, LARGE = 20_000_000, 60_000_000
STEP = 2**18


def run_of(stages: list[tuple[int, float, int]], noise: float = 0.0, decay: int = 0) -> list[dict[str, Any]]:
    """Records of a run: (parameters, tokens that it is worth at the start, steps) of every stage; over its
    last `decay` steps the rate falls and so does the loss.
    """
    rng, records, tokens = np.random.default_rng(1), [], 0
    for stage, (params, start, steps) in enumerate(stages):
        records.append({"kind": "stage", "stage": stage, "parameters": params})
        for k in range(1, steps + 1):
            tokens += STEP
            last = stage == len(stages) - 1 and k > steps - decay
            lr = 1e-3 * min(1.0, k / 20 if stage == 0 else 1.0) * (0.5 if last else 1.0)
            loss = LAW.loss(params, start + k * STEP) + rng.normal(0, noise) - (0.2 if last else 0.0)
            records.append(
                {"kind": "step", "stage": stage, "tokens": tokens, "loss": loss, "lr": lr, "applied": True}
            )
    return records


def grown(rho: float, first: int = 4000, noise: float = 0.0) -> list[dict[str, Any]]:
    start = worth(LAW, SMALL, first * STEP, LARGE, rho)
    return run_of([(SMALL, 0.0, first), (LARGE, start, 3000)], noise, decay=300)


ALONE = run_of([(LARGE, 0.0, 6000)], decay=600)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7, 1.0])
def test_rho_is_found_against_a_run_of_the_larger_size(rho: float) -> None:
    found = read_pilot(grown(rho), ALONE)
    assert found.rho == pytest.approx(rho, abs=0.03)
    assert found.first_tokens == 4000 * STEP


def test_noise_is_inside_the_interval() -> None:
    alone = run_of([(LARGE, 0.0, 6000)], noise=0.01, decay=600)
    for rho in (0.2, 0.8):
        found = read_pilot(grown(rho, noise=0.01), alone)
        assert found.interval[0] <= rho <= found.interval[1]
        assert found.interval[1] - found.interval[0] < 0.5


def test_without_that_run_the_curve_tells_what_it_can() -> None:
    found = read_pilot(grown(0.5))
    assert not found.against_alone
    assert found.interval[0] <= 0.5 <= found.interval[1]


def test_losses_after_the_rate_has_fallen_do_not_count() -> None:
    curve = curves_of(ALONE)[0]
    assert curve.tokens[-1] == 5400 * STEP
    assert curve.tokens[0] >= 19 * STEP
    assert curve.total == 6000 * STEP


def test_pilots_that_grew_after_different_tokens_give_the_law_of_reuse() -> None:
    found = read_pilots([grown(0.4), ALONE, grown(0.4, first=2000)])
    assert [one.against_alone for one in found.carried] == [True, True]
    assert found.rho[0] <= 0.4 <= found.rho[1]
    assert found.reuse is not None
    assert found.reuse.exponent(4000 * STEP) < found.reuse.exponent(2000 * STEP)


def test_the_reuse_law_is_found_again() -> None:
    law = ReuseLaw(E=1.9, A=1.4, a1=0.12, a2=0.11, a3=0.02, unit=1e9)
    points = [(d1, d2, law.loss(d1, d2)) for d1 in (2e8, 1e9, 5e9) for d2 in (1e8, 5e8, 2e9, 8e9)]
    found = fit_reuse(points)
    assert pytest.approx(1.9, abs=2e-3) == found.E
    assert [found.exponent(d) for d in (2e8, 5e9)] == pytest.approx(
        [law.exponent(d) for d in (2e8, 5e9)], abs=2e-3
    )


@pytest.mark.parametrize(
    ("runs", "word"),
    [
        ([ALONE], "grew"),
        ([[]], "no losses"),
        ([run_of([(SMALL, 0.0, 10), (LARGE, 0.0, 10)])], "too short"),
    ],
    ids=["not-grown", "empty", "short"],
)
def test_what_says_nothing_is_refused(runs: list[list[dict[str, Any]]], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        read_pilots(runs)


def test_two_sizes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(RecipeError, match="differ in size"):
        read_pilot(grown(0.5), run_of([(SMALL, 0.0, 100)]))
