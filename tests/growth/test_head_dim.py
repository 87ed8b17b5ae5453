"""head_dim grows and every old rotary pair keeps its frequency and its xPos decay."""

from __future__ import annotations

import math

import pytest
import torch

from growlm.growth.operators import plan_growth
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig
from tests.growth.tools import certificate, from_old, grown, table
from tests.model.tiny import FAMILIES, batch, config, decoder, gradients, trained


@pytest.mark.parametrize(
    ("family", "tied"), [*FAMILIES, ("gpt2", True), ("opt", False), ("qwen2", False), ("qwen3", False)]
)
@pytest.mark.parametrize("operator", ["masked", "zero"])
def test_exact_alone_and_with_everything_else(family: str, tied: bool, operator: str) -> None:
    c = config(family, tied=tied)
    if (family, operator) == ("qwen3", "zero"):
        return  # refused: test_refused.py
    old = trained(c)
    for more in ({}, {"n_heads": 9, "n_kv_heads": 3, "d_ff": 40, "n_layers": 3}):
        growth = plan_growth(c, c.with_(head_dim=8, **more), table(operator=operator, noise=0.1))
        assert growth.exact
        assert certificate(growth, old, grown(growth, old))["max_dlogit"] <= 1e-10


def test_an_odd_number_of_new_pairs() -> None:
    c = config("flm")
    old = trained(c)
    for operator in ("masked", "zero"):
        growth = plan_growth(c, c.with_(head_dim=10), table(operator=operator))
        assert certificate(growth, old, grown(growth, old))["max_dlogit"] <= 1e-10


def test_old_frequencies_stay_and_a_doubling_has_those_of_the_larger_head() -> None:
    """theta^(-2i/h) for old pairs; together with the new ones theta^(-2i/h'), h' = 2h, in another order."""
    c = config("llama", head_dim=8)
    exponents = plan_growth(c, c.with_(head_dim=16), table(operator="masked")).new.rotary
    assert exponents is not None
    assert list(exponents[:4]) == [2 * i / 8 for i in range(4)]
    assert sorted(exponents) == [2 * i / 16 for i in range(8)]


def test_recomputed_frequencies_would_not_be_exact() -> None:
    """What a library without the rule would do moves the logits."""
    c = config("llama", head_dim=8)
    growth = plan_growth(c, c.with_(head_dim=16), table(operator="zero"))
    wrong = type(growth)(**{**vars(growth), "new": growth.new.with_(rotary=None)})
    old = trained(c)
    assert certificate(wrong, old, grown(wrong, old))["max_dlogit"] > 1e-3


def test_the_scale_of_scores_is_kept() -> None:
    """q.k * attn_mult / sqrt(h') must be q.k / sqrt(h): 1/sqrt(h) becomes 1/sqrt(h')."""
    c = config("llama")
    growth = plan_growth(c, c.with_(head_dim=16), table(operator="masked"))
    assert growth.new.attn_mult / math.sqrt(16) == pytest.approx(1 / math.sqrt(4))


@pytest.mark.parametrize("operator", ["masked", "zero"])
def test_moments_follow_the_gradient(operator: str) -> None:
    c: ModelConfig = config("flm")
    growth = plan_growth(c, c.with_(head_dim=8), table(operator=operator))
    old = trained(c)
    new = decoder(growth.new, grown(growth, old))
    new.set_mask(growth.ramp, 0.0)
    before, after = (gradients(m, *batch(c)) for m in (decoder(c, old), new))
    first = grown(growth, before, "exp_avg")
    scale = max(g.abs().max().item() for g in before.values())
    for name, p in parameter_table(growth.new).items():
        kept = from_old(growth, p)
        torch.testing.assert_close(first[name][kept], after[name][kept], rtol=0, atol=1e-12 * scale, msg=name)
