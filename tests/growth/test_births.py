"""Every unit and block has an optimizer clock that starts when it was born."""

from __future__ import annotations

import math

import pytest
import torch

from growlm.growth.apply import expand_births, grow_births
from growlm.growth.operators import plan_growth
from growlm.model.decoder import Decoder
from growlm.recipe.schema import OptimTable
from growlm.train.optimizer import Births, Optimizer
from tests.growth.tools import table
from tests.model.tiny import config

FIRST = config("llama")
SECOND = FIRST.with_(d_model=20, d_ff=30, n_heads=6, n_kv_heads=3, n_layers=4, vocab_size=53)


def test_new_parts_are_born_at_the_growth() -> None:
    births = grow_births(plan_growth(FIRST, SECOND, table(operator="masked")), {}, 100)
    assert {axis: runs for axis, runs in births.items() if runs} == {
        "vocab": [[50, 53, 100]],
        "d_model": [[16, 20, 100]],
        "q": [[16, 24, 100]],
        "kv": [[8, 12, 100]],
        "ffn": [[24, 30, 100]],
        "layers": [[1, 2, 100], [3, 4, 100]],
    }


def test_births_go_through_a_second_growth() -> None:
    births = grow_births(plan_growth(FIRST, SECOND, table(operator="masked")), {}, 100)
    third = SECOND.with_(d_model=40, d_ff=33, n_layers=5, vocab_size=60)
    births = grow_births(plan_growth(SECOND, third, table(operator="clone", depth="stack")), births, 250)
    assert births["d_model"] == [[16, 20, 100], [36, 40, 100]]  # copies are as old as their source
    assert births["ffn"] == [[24, 30, 100]]
    assert births["q"] == [[16, 24, 100]]
    assert births["vocab"] == [[50, 53, 100], [53, 60, 250]]
    assert births["layers"] == [[1, 2, 100], [3, 4, 100]]  # block 4 copies block 0 and its moments


def test_no_growth_no_births() -> None:
    assert not any(grow_births(plan_growth(FIRST, FIRST, table(operator="masked")), {}, 9).values())


def test_reset_moments_reset_every_clock() -> None:
    births = grow_births(plan_growth(FIRST, SECOND, table(operator="masked", moments="reset")), {}, 100)
    assert births["d_model"] == [[0, 20, 100]]


def test_asymmetric_moments_make_copies_young() -> None:
    how = table(operator="clone", moments="asymmetric")
    births = grow_births(plan_growth(FIRST, FIRST.with_(d_model=32, d_ff=30), how), {}, 100)
    assert births["d_model"] == [[16, 32, 100]]
    assert births["ffn"] == [[24, 30, 100]]
    assert not births["q"]


def test_expand_is_the_inverse_of_runs() -> None:
    assert expand_births([[1, 3, 7], [4, 5, 9]], 6).tolist() == [0, 7, 7, 0, 9, 0]
    assert expand_births(None, 3).tolist() == [0, 0, 0]


def largest_moves(births: Births, now: int) -> list[float]:
    """Largest |change| / lr of new entries in each of the 12 updates after `now`, under a steady gradient."""
    model = Decoder(SECOND).init_weights(0).double()
    optim = OptimTable.model_validate({"lr": 1e-3, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-30})
    optimizer = Optimizer.of(model, optim, births)
    moves = []
    for update in range(now + 1, now + 13):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer.step({n: torch.ones_like(p) for n, p in before.items()}, 1e-3, update)
        new = [before["embedding.weight"][:, 16:] - model.embedding.weight[:, 16:]]
        new += [before[f"blocks.1.{n}"] - p for n, p in model.blocks[1].named_parameters()]  # a new block
        moves.append(max(change.abs().max().item() for change in new) / 1e-3)
    return moves


def test_new_parts_never_move_by_more_than_the_learning_rate() -> None:
    """Zero moments under the old count move by (1 - b1^n) / sqrt(1 - b2^n): 3.2 at first, 6.6 at the 12th."""
    now = 100_000
    births = grow_births(plan_growth(FIRST, SECOND, table(operator="masked")), {}, now)
    assert largest_moves(births, now) == pytest.approx([1.0] * 12, rel=1e-6)
    trap = [(1 - 0.9**n) / math.sqrt(1 - 0.999**n) for n in range(1, 13)]
    assert largest_moves({}, now) == pytest.approx(trap, rel=1e-6)
    assert max(trap) > 6.5
