"""Growth by a loss law: published schedules and tables, and formulas against brute force."""

import math
from itertools import pairwise

import numpy as np
import pytest

from growlm.plan.growth.ladder import best_ladder
from growlm.plan.growth.theory import (
    Leg,
    cost_of_legs,
    effective_tokens,
    final_loss,
    ideal_saving,
    optimal_flops,
    shape_saving,
    speed_ups,
    stacking_tokens,
    worth,
)
from growlm.scaling.laws import EPOCH, HOFFMANN, Chinchilla

FLM = [Leg(16e9, 245.37e9), Leg(51e9, 39.64e9), Leg(101e9, 26.54e9)]
"""FLM-101B (2309.03852, table 1)."""


@pytest.mark.parametrize(
    ("law", "starts", "loss", "static", "equal_loss", "optimal", "at_optimal"),
    [
        (EPOCH, (115, 115), 2.0627, 2.0192, 1.66, 21, 2.0588),
        (HOFFMANN, (141, 143), 2.0583, 2.0122, 1.99, 10.8, 2.0385),
    ],
    ids=["epoch", "hoffmann"],
)
def test_flm_101b_if_only_the_loss_carries_over(
    law: Chinchilla,
    starts: tuple[float, float],
    loss: float,
    static: float,
    equal_loss: float,
    optimal: float,
    at_optimal: float,
) -> None:
    """The schedule of FLM-101B analysed with both fits of the Chinchilla law."""
    at = effective_tokens(law, FLM, 0.0)
    assert [round(tokens / 1e9) for tokens in at[1:3]] == pytest.approx(starts, abs=1)
    assert final_loss(law, FLM, 0.0) == pytest.approx(loss, abs=1e-4)
    assert final_loss(law, FLM, 1.0) == pytest.approx(static, abs=1e-4)
    assert law.loss(101e9, 311.55e9) == pytest.approx(static, abs=1e-4)
    ups = speed_ups(law, FLM, 0.0)
    assert (ups.equal_tokens, ups.equal_loss) == pytest.approx((3.65, equal_loss), abs=5e-3)
    params, tokens = law.optimal(cost_of_legs(FLM))
    assert params / 1e9 == pytest.approx(optimal, rel=5e-3)
    assert law.loss(params, tokens) == pytest.approx(at_optimal, abs=1e-4)
    assert ups.compute_optimal < 1


def test_flm_101b_by_its_own_days_is_3_56_times_as_fast_at_equal_tokens() -> None:
    days = zip(FLM, (9.63, 5.37, 6.54), strict=True)
    legs = [Leg(leg.params, leg.tokens, token_cost=d / leg.tokens) for leg, d in days]
    assert speed_ups(EPOCH, legs, 0.0).equal_tokens == pytest.approx(3.56, abs=5e-3)
    assert 1 - 1 / speed_ups(EPOCH, legs, 0.0).equal_tokens == pytest.approx(0.72, abs=2e-3)


@pytest.mark.parametrize(
    ("law", "two", "three"), [(EPOCH, 1.34, 1.40), (HOFFMANN, 2.14, 2.18)], ids=["epoch", "hoffmann"]
)
def test_the_best_ladders_to_101b(law: Chinchilla, two: float, three: float) -> None:
    """To the loss of 311.55B tokens, with a few percent of them at the last size."""
    found = [best_ladder(law, 101e9, 311.55e9, stages, last_share=0.035) for stages in (2, 3)]
    assert [ladder.saving for ladder in found] == pytest.approx([two, three], rel=0.01)
    for ladder in found:
        assert cost_of_legs(ladder.legs) == pytest.approx(ladder.flops, rel=1e-9)
        assert final_loss(law, ladder.legs, 0.0) == pytest.approx(law.loss(101e9, 311.55e9), abs=1e-9)


def test_the_best_ladder_is_that_of_brute_force() -> None:
    law, params, tokens = HOFFMANN, 1e9, 20e9
    best = best_ladder(law, params, tokens, 2, last_share=0.2, sizes=25, levels=200)
    switch = law.loss(params, 0.8 * tokens)
    costs = [
        cost_of_legs([Leg(n, law.tokens_for(n, loss)), Leg(params, tokens - law.tokens_for(params, loss))])
        for n in np.geomspace(params / 200, params, 25)[:-1]
        for loss in np.linspace(switch, switch + 1, 4000)
    ]
    assert best.flops == pytest.approx(min(costs), rel=2e-3)


@pytest.mark.parametrize(
    ("law", "saving"),
    [(EPOCH, 1.083), (HOFFMANN, 1.057), (Chinchilla(1.8, 400, 400, 0.3, 0.3), 1.068)],
    ids=["epoch", "hoffmann", "equal"],
)
def test_ideal_continuous_growth_in_closed_form_and_by_brute_force(law: Chinchilla, saving: float) -> None:
    """Small steps of loss, each at the size that costs least, against one size for all of them."""
    assert ideal_saving(law) == pytest.approx(saving, abs=5e-4)
    sizes = np.geomspace(1e4, 1e14, 4000)
    losses = law.E + np.geomspace(20, 0.2, 1500)
    spent = 0.0
    for before, after in pairwise(losses):
        with np.errstate(divide="ignore", invalid="ignore"):
            left = [loss - law.E - law.A * sizes**-law.alpha for loss in (before, after)]
            d0, d1 = ((law.B / x) ** (1 / law.beta) for x in left)
            cost = np.where(left[1] > 0, 6 * sizes * (d1 - d0), np.inf)
        spent += float(np.nanmin(cost))
    assert optimal_flops(law, float(losses[-1])) / spent == pytest.approx(saving, rel=0.01)


def test_the_compute_optimum_inverts() -> None:
    for law in (EPOCH, HOFFMANN):
        params, tokens = law.optimal(1e22)
        assert optimal_flops(law, law.loss(params, tokens)) == pytest.approx(1e22, rel=1e-9)
    assert optimal_flops(EPOCH, EPOCH.E) == math.inf


@pytest.mark.parametrize(
    ("params", "tokens", "published"),
    [(8e9, 15e12, 6.58), (7e9, 2e12, 11.11), (13e9, 2e12, 15.84), (70e9, 2e12, 42.48)],
    ids=["llama3-8b", "llama2-7b", "llama2-13b", "llama2-70b"],
)
def test_when_to_stack(params: float, tokens: float, published: float) -> None:
    """The table of G_stack (tongxuluo/prts, README)."""
    assert stacking_tokens(params, 6 * params * tokens) / 1e9 == pytest.approx(published, abs=5e-3)


def test_what_shapes_of_growth_save() -> None:
    """2309.03852, figure 1: linear growth saves half, superlinear more, sublinear less."""
    assert shape_saving(1.0) == 0.5
    assert shape_saving(0.5) < 0.5 < shape_saving(2.0)
    assert shape_saving(3.0, first_share=1.0) == 0.0


@pytest.mark.parametrize("law", [EPOCH, HOFFMANN], ids=["epoch", "hoffmann"])
def test_worth_rises_from_the_pessimistic_to_the_optimistic_end(law: Chinchilla) -> None:
    found = [worth(law, 1e9, 50e9, 3e9, rho) for rho in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == sorted(found)
    assert law.loss(3e9, found[0]) == pytest.approx(law.loss(1e9, 50e9), abs=1e-12)
    assert found[2] == pytest.approx(math.sqrt(found[0] * found[4]))
    assert found[4] == pytest.approx(50e9)


def test_idle_tokens_are_paid_for_and_teach_nothing() -> None:
    legs = [Leg(1e9, 10e9), Leg(2e9, 10e9, idle_tokens=10e9)]
    assert effective_tokens(EPOCH, legs, 1.0)[-1] == pytest.approx(10e9)
    assert cost_of_legs(legs) == 6 * 30e18
