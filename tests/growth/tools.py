"""Growing a state held in memory, for the tests of growth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from growlm.growth.apply import Kind, grow_rows, new_entries
from growlm.growth.certify import certify
from growlm.growth.operators import Growth, plan_growth
from growlm.model.parameters import Parameter, family_of, parameter_table
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import State, batch


def table(**settings: Any) -> GrowthTable:
    """Growth settings; fp64, and without noise and its refusal unless asked for."""
    return GrowthTable.model_validate({"certify": "fp64", "noise": 0.0, "force": True} | settings)


def grown(growth: Growth, state: State, kind: Kind = "weight") -> State:
    """Every tensor of one kind, grown."""
    return {
        name: grow_rows(growth, p, kind, 0, p.shape[0], lambda n, a, b: state[n][a:b])
        for name, p in parameter_table(growth.new).items()
    }


def certificate(growth: Growth, old: State, new: State, seed: int = 0) -> dict[str, Any]:
    """The certificate on random tokens."""
    return certify(growth, old, new, *batch(growth.old, seed))


def from_old(growth: Growth, p: Parameter) -> Tensor:
    """Entries of a parameter that come from entries of the old model."""
    if p.layer is not None and growth.layers[p.layer].new:
        return torch.zeros(p.shape, dtype=torch.bool)
    return torch.from_numpy(~new_entries(growth, p, 0, p.shape[0]))


def completep(c: ModelConfig) -> ModelConfig:
    """The same model as the base shape of a run under CompleteP."""
    return c.with_(mup_base_d_model=c.d_model, mup_base_n_layers=c.n_layers)


def everything(c: ModelConfig, *, multiple: bool) -> ModelConfig:
    """Every axis grown: d_model, kv groups, queries in each group, ffn, layers, vocabulary."""
    return c.with_(
        d_model=2 * c.d_model if multiple else c.d_model + 7,
        n_heads=(c.queries_per_kv + 1) * (c.n_kv_heads + 1),
        n_kv_heads=c.n_kv_heads + 1,
        d_ff=c.d_ff + 13,
        n_layers=c.n_layers + 3,
        vocab_size=c.vocab_size + 9,
    )


def reachable(c: ModelConfig, operator: str) -> ModelConfig:
    """Every axis that `operator` can grow, to a size that it can reach."""
    if operator == "staged":
        sizes = {a: 2 * getattr(c, a) for a in ("d_model", "n_heads", "n_kv_heads", "d_ff")}
        return c.with_(**sizes, vocab_size=c.vocab_size + 9)
    target = everything(c, multiple=operator == "clone")
    if operator == "zero" and family_of(c).norm == "layer":
        target = target.with_(d_model=c.d_model)
    return target.with_(n_layers=c.n_layers) if operator == "ligo" else target


def exact_depths(c: ModelConfig) -> tuple[str, ...]:
    """The exact depth operators of a family: identity blocks of gated ones would never wake."""
    gated = "blocks.0.mlp.gate_proj.weight" in parameter_table(c)
    return ("masked", "zero_block") if gated else ("masked", "zero_block", "identity")


def all_growths(c: ModelConfig) -> list[Growth]:
    """Every exact way to grow every axis of `c`."""
    growths = []
    for operator in ("masked", "zero", "clone", "lemon", "staged"):
        target = reachable(c, operator)
        if operator == "lemon" and family_of(c).norm == "layer":
            target = target.with_(d_model=2 * c.d_model)  # units that hold the mean take part of the gradient
        growths += [
            plan_growth(c, target, table(operator=operator, depth=depth, split=0.5))
            for depth in exact_depths(c)
        ]
    return growths
