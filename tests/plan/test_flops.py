"""Counted FLOPs are those that torch counts, for every family."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from growlm.parallel.recompute import recompute
from growlm.plan.flops import (
    attention_flops,
    causal_flops_per_token,
    executed_flops_per_token,
    flops_per_token,
    matmul_flops,
)
from growlm.plan.layout import Layout, Recompute
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import FAMILIES, IMPORTED, config, decoder


def counted(c: ModelConfig, T: int, layout: Layout) -> float:
    """FLOPs per token that torch counts, forward and backward. It does not know attention's fused kernel on a
    CPU, which is for contexts above 512; below, attention is two batched matmuls over the whole square."""
    model, tokens = decoder(c), torch.zeros(2, T, dtype=torch.long)
    recompute(model, layout)
    with FlopCounterMode(display=False) as counter:
        model.loss(tokens, tokens).backward()
    return counter.get_total_flops() / tokens.numel()


@pytest.mark.parametrize("n_layers", [0, 2])
@pytest.mark.parametrize(("family", "tied"), FAMILIES + IMPORTED)
def test_a_step_is_counted_to_the_flop(family: str, tied: bool, n_layers: int) -> None:
    c = config(family, tied=tied, n_layers=n_layers)
    assert flops_per_token(c, 16) == sum(matmul_flops(c, 16).values()) == counted(c, 16, Layout())


@pytest.mark.parametrize(("what", "T"), [("full", 16), ("selective", 640)])
@pytest.mark.parametrize(("family", "tied"), FAMILIES + IMPORTED)
def test_so_is_what_recomputation_adds(family: str, tied: bool, what: Recompute, T: int) -> None:
    c = config(family, tied=tied, n_layers=3, max_positions=1024)
    layout = Layout(recompute=what, recompute_every=2)
    added = executed_flops_per_token(c, layout, T) - flops_per_token(c, T)
    assert added == counted(c, T, layout) - counted(c, T, Layout())


def test_causal_halves_attention_alone() -> None:
    c = config("llama", n_layers=3)
    assert flops_per_token(c, 16) - causal_flops_per_token(c, 16) == 3 * attention_flops(c, 16) / 2
