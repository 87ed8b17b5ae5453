"""Copies that are equal stay equal for ever; noise or an unequal split lets them part."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from growlm.errors import GrowthError
from growlm.growth.apply import grow_births
from growlm.growth.operators import Growth, plan_growth
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import OptimTable
from growlm.train.optimizer import Optimizer
from tests.growth.tools import certificate, grown, table
from tests.growth.training import grown_state, train
from tests.model.tiny import State, config, decoder, trained

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


@pytest.mark.parametrize("axis", ["ffn", "q", "kv"])
def test_copies_locked_in_one_block_are_not_hidden_by_another(axis: str) -> None:
    growth, new = clone(AXES[axis], noise=0.1)
    for name, p in parameter_table(growth.new).items():
        if p.layer != 1:
            continue  # in block 1 every unit equals its copy, in block 0 noise parts all
        for dim, of in enumerate(p.axes):
            if of in ("q", "kv", "ffn"):
                source = growth.maps[of].source
                first = np.array([int(np.flatnonzero(source == s)[0]) for s in source])
                new[name] = new[name].index_select(dim, torch.from_numpy(first))
    rank = certificate(growth, trained(OLD), new)["symmetry"][axis]
    assert rank == {"units": len(growth.maps[axis]), "distinct": len(growth.maps[axis]) // 2}


def test_fresh_blocks_hold_no_copies() -> None:
    growth, new = clone(AXES["ffn"].with_(n_layers=3), depth="random", noise=0.1)
    for name in ("gate", "up", "down"):
        new[f"blocks.2.mlp.{name}_proj.weight"].zero_()
    assert certificate(growth, trained(OLD), new)["symmetry"] == {"ffn": {"units": 48, "distinct": 48}}


def asymmetry(state: State) -> dict[str, float]:
    """Relative distance of what the two copies of d_model, of every q unit and of ffn units write."""
    pairs = {
        "d_model": state["embedding.weight"].chunk(2, dim=1),
        "q": state["blocks.0.attn.q_proj.weight"].chunk(2),
        "ffn": state["blocks.0.mlp.up_proj.weight"].chunk(2),
    }
    return {axis: ((a - b).norm() / a.norm()).item() for axis, (a, b) in pairs.items()}


OPTIM = {n: OptimTable.model_validate({"name": n, "lr": 1e-3}) for n in ("adamw", "muon")}


@cache
def begun(name: str) -> tuple[State, State]:
    """Weights and optimizer state of the small model after some steps."""
    model = decoder(OLD, trained(OLD))
    optimizer = Optimizer.of(model, OPTIM[name], {})
    train(model, optimizer, range(1, 11), data=0)
    return dict(model.state_dict()), optimizer.state_dict()


PARTED: list[dict[str, Any]] = [{"noise": 0.1}, {"split": 0.3}, {"moments": "asymmetric"}]
CASES: list[tuple[str, dict[str, Any], bool]] = [
    *(("adamw", settings, True) for settings in PARTED),
    ("adamw", {}, False),
    ("adamw", {"moments": "reset"}, False),
    ("muon", {"moments": "asymmetric"}, True),
    ("muon", {}, False),
]


@pytest.mark.parametrize(("name", "settings", "parted"), CASES, ids=str)
def test_after_200_steps_equal_copies_are_locked_and_others_have_parted(
    name: str, settings: dict[str, Any], parted: bool
) -> None:
    """Noise, an uneven split and state of their own part copies; resetting all or nothing does not."""
    target = OLD.with_(d_model=32, n_heads=8, n_kv_heads=4, d_ff=48)
    growth = plan_growth(OLD, target, table(operator="clone", **settings))
    weights, state = begun(name)
    model = decoder(growth.new, grown(growth, weights))
    optimizer = Optimizer.of(model, OPTIM[name], grow_births(growth, {}, 10))
    optimizer.load_state_dict(grown_state(growth, state))
    losses = train(model, optimizer, range(11, 211), data=0)
    assert losses[-1] < 0.5 * losses[0]
    for axis, distance in asymmetry(dict(model.state_dict())).items():
        assert (distance > 1e-3) if parted else (distance < 1e-6), axis


@pytest.mark.parametrize("depth", ["zero_block", "masked"])
@pytest.mark.parametrize(
    ("operator", "settings"),
    [("clone", {}), ("lemon", {}), ("rms", {}), ("clone", {"noise": 0.0, "split": 0.3})],
)
def test_copies_in_new_blocks_part_too(operator: str, settings: dict[str, Any], depth: str) -> None:
    """Only heads and ffn are copied: what parts them elsewhere is on the zero writers, or on no moments."""
    target = OLD.with_(n_heads=8, n_kv_heads=4, d_ff=48, n_layers=OLD.n_layers + 1)
    how = table(**{"operator": operator, "depth": depth, "force": False, "noise": None} | settings)
    growth = plan_growth(OLD, target, how)
    block = next(i for i, layer in enumerate(growth.layers) if layer.new)
    weights, state = begun("adamw")
    model = decoder(growth.new, grown(growth, weights))
    optimizer = Optimizer.of(model, OPTIM["adamw"], grow_births(growth, {}, 10))
    optimizer.load_state_dict(grown_state(growth, state))
    train(model, optimizer, range(11, 211), data=0)
    trained_state = model.state_dict()
    for name in ("attn.q_proj", "mlp.up_proj"):
        a, b = trained_state[f"blocks.{block}.{name}.weight"].chunk(2)
        assert (a - b).norm() > 1e-3 * a.norm(), name


def test_copies_that_can_never_part_are_refused_unless_forced() -> None:
    with pytest.raises(GrowthError, match="part"):
        clone(AXES["ffn"], force=False)
    for allowed in ({"force": True}, *PARTED):
        clone(AXES["ffn"], **{"force": False} | allowed)
