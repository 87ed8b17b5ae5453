"""Probes know what every entry has to be, NEW ones too; of operators that do more than copy they are mute."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from growlm.errors import GrowthError
from growlm.growth import sampled
from growlm.growth.certify import certify, require
from growlm.growth.operators import Growth, plan_growth
from growlm.growth.sampled import certify_sampled
from growlm.growth.weights import MemoryWeights
from growlm.model.parameters import Parameter, parameter_table
from tests.growth.tools import grown, table
from tests.model.tiny import State, batch, config, trained


def probed(growth: Growth, old: State, new: State) -> dict[str, Any]:
    weights = MemoryWeights(growth.old, old), MemoryWeights(growth.new, new)
    return certify_sampled(growth, *weights, probes=10**6)


def planned(family: str, operator: str, **sizes: int) -> Growth:
    c = config(family, tied=False)
    return plan_growth(c, c.with_(**sizes), table(operator=operator, split=0.5))


def new_writers(p: Parameter, growth: Growth) -> Tensor | None:
    """NEW rows of what writes the stream."""
    rows = growth.maps["d_model"].is_new
    return _rows(p, rows) if p.writes_residual and p.axes[0] == "d_model" else None


def new_units(p: Parameter, growth: Growth) -> Tensor | None:
    """Columns of NEW units in what writes the stream: hidden units, or those of a lookup."""
    if not p.writes_residual or len(p.axes) == 1 or not growth.maps[p.axes[1]].is_new.any():
        return None
    new = growth.maps[p.axes[1]].is_new
    return torch.from_numpy(np.broadcast_to(new, p.shape).copy())


def new_keys(p: Parameter, growth: Growth) -> Tensor | None:
    return _rows(p, growth.maps["kv"].is_new) if p.key else None


def norm_biases(p: Parameter, growth: Growth) -> Tensor | None:
    is_norm = p.role == "bias" and p.axes == ("d_model",) and not p.writes_residual
    return _rows(p, growth.maps["d_model"].is_new) if is_norm else None


def _rows(p: Parameter, rows: Any) -> Tensor:
    return torch.from_numpy(rows).reshape(-1, *[1] * (len(p.shape) - 1)).expand(p.shape)


Places = Callable[[Parameter, Growth], Tensor | None]

CASES: list[tuple[str, str, dict[str, int], Places]] = [
    *(
        (family, operator, {"d_model": 23, "d_ff": 40}, places)
        for family, operator in (("llama", "zero"), ("llama", "lemon"), ("qwen3", "zero"), ("qwen3", "lemon"))
        for places in (new_writers, new_units)
        if operator == "zero" or places is new_writers
    ),
    *(("flm", "lemon", {"d_model": 23}, places) for places in (new_writers, new_units, norm_biases)),
    *(("gpt2", "lemon", {"d_model": 23}, places) for places in (new_writers, new_units)),
    ("flm", "zero", {"d_ff": 40}, new_units),
    ("llama", "zero", {"head_dim": 8}, new_keys),
    ("flm", "zero", {"head_dim": 8}, new_keys),
]


@pytest.mark.parametrize(("family", "operator", "sizes", "places"), CASES)
def test_damage_to_new_entries_is_noticed(
    family: str, operator: str, sizes: dict[str, int], places: Places
) -> None:
    """One NEW entry of one tensor after another; what is right passes."""
    growth = planned(family, operator, **sizes)
    old = trained(growth.old)
    right = grown(growth, old)
    require(probed(growth, old, right))
    damaged = 0
    for name, p in parameter_table(growth.new).items():
        where = places(p, growth)
        if where is None:
            continue
        for at in (where.nonzero()[0], where.nonzero()[-1]):
            new = right | {name: right[name].clone()}
            new[name][tuple(at)] += 7.0
            with pytest.raises(GrowthError, match=name):
                require(probed(growth, old, new))
            damaged += 1
    assert damaged


def test_random_writers_and_constant_columns_are_no_means() -> None:
    """Growths that the full certificate refuses; also when the right mean is near zero."""
    growth = planned("flm", "lemon", d_model=23)
    old = trained(growth.old)
    for name, place in (
        ("blocks.1.attn.o_proj.weight", np.s_[16:]),
        ("blocks.0.mlp.down_proj.bias", np.s_[16:]),
        ("embedding.weight", np.s_[:, 16:]),
    ):
        for values in (
            lambda shape: 0.2 * torch.randn(shape),
            lambda shape: 7 * torch.ones(shape),
            torch.zeros,
        ):
            new = grown(growth, old)
            new[name][place] = values(new[name][place].shape).double()
            with pytest.raises(GrowthError):
                require(certify(growth, old, new, *batch(growth.old)))
            with pytest.raises(GrowthError, match=name):
                require(probed(growth, old, new))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_are_right_in_the_dtype_they_are_stored_in(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled, "CHUNK_BYTES", 2000)  # old writers in several pieces
    c = config("flm", d_model=256, n_layers=1)
    old = trained(c, dtype=dtype)
    growth = plan_growth(c, c.with_(d_model=600), table(operator="lemon"))
    new = grown(growth, old)
    require(probed(growth, old, new))
    new["embedding.weight"][:, 512:] = 0
    with pytest.raises(GrowthError, match=r"embedding\.weight"):
        require(probed(growth, old, new))


@pytest.mark.parametrize("operator", ["shrink_perturb", "aki"])
def test_operators_that_do_more_than_copy_get_no_number(operator: str) -> None:
    growth = planned("llama", operator, d_ff=48)
    old = trained(growth.old)
    new = grown(growth, old)
    result = probed(growth, old, new)
    assert (result["max_error"], result["worst"]) == (None, None)
    assert {layer["drift"] for layer in result["layers"]} == {None}
    require(json.loads(json.dumps(result)))
    new["blocks.1.mlp.up_proj.weight"][47, 3] = float("nan")
    with pytest.raises(GrowthError, match="not numbers"):
        require(probed(growth, old, new))


def test_aki_that_adds_blocks_alone_is_probed_like_any_growth() -> None:
    growth = planned("llama", "aki", n_layers=3)
    old = trained(growth.old)
    result = probed(growth, old, grown(growth, old))
    assert result["exact"]
    assert result["max_error"] <= result["tolerance"]


@pytest.mark.parametrize("depth", ["zero_block", "masked"])
def test_copies_that_are_made_to_part_in_silent_blocks_pass(depth: str) -> None:
    c = config("llama")
    target = c.with_(d_ff=48, n_heads=8, n_kv_heads=4, n_layers=4)
    growth = plan_growth(c, target, table(operator="clone", depth=depth, noise=0.1, force=False))
    old = trained(c)
    require(probed(growth, old, grown(growth, old)))
