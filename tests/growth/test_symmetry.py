"""Copies that are equal stay equal for ever; noise or an unequal split lets them part."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from growlm.growth.operators import Growth, plan_growth
from tests.growth.tools import certificate, grown, table
from tests.model.tiny import State, batch, config, decoder, trained

OLD = config("llama")
AXES = {
    "d_model": OLD.with_(d_model=32),
    "q": OLD.with_(n_heads=8),
    "kv": OLD.with_(n_heads=8, n_kv_heads=4),
    "ffn": OLD.with_(d_ff=48),
}


def clone(target: Any, **settings: Any) -> tuple[Growth, State]:
    growth = plan_growth(OLD, target, table(operator="clone", **settings))
    return growth, grown(growth, trained(OLD))


@pytest.mark.parametrize("axis", AXES)
def test_rank_counts_the_units_that_can_differ(axis: str) -> None:
    for settings, parted in (({}, False), ({"noise": 0.1}, True), ({"split": 0.3}, True)):
        growth, new = clone(AXES[axis], **settings)
        rank = certificate(growth, trained(OLD), new)["symmetry"][axis]
        assert rank["units"] == len(growth.maps[axis])
        assert rank["distinct"] == (rank["units"] if parted else rank["units"] // 2)


def test_rank_speaks_only_of_copies() -> None:
    growth = plan_growth(OLD, OLD.with_(d_ff=30), table(operator="masked"))
    assert certificate(growth, trained(OLD), grown(growth, trained(OLD)))["symmetry"] == {}


def asymmetry(state: State) -> dict[str, float]:
    """Relative distance of what the two copies of d_model, of every q unit and of ffn units write."""
    pairs = {
        "d_model": state["embedding.weight"].chunk(2, dim=1),
        "q": state["blocks.0.attn.q_proj.weight"].chunk(2),
        "ffn": state["blocks.0.mlp.up_proj.weight"].chunk(2),
    }
    return {axis: ((a - b).norm() / a.norm()).item() for axis, (a, b) in pairs.items()}


@pytest.mark.parametrize(
    ("settings", "parted"), [({}, False), ({"noise": 0.1}, True), ({"split": 0.3}, True)]
)
def test_after_200_steps_equal_copies_are_locked_and_others_have_parted(
    settings: dict[str, float], parted: bool
) -> None:
    target = OLD.with_(d_model=32, n_heads=8, n_kv_heads=4, d_ff=48)
    growth, new = clone(target, **settings)
    model = decoder(growth.new, new)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    tokens, targets = batch(growth.new)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = model.loss(tokens, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    for axis, distance in asymmetry(model.state_dict()).items():
        assert (distance > 1e-3) if parted else (distance < 1e-6), axis
