"""Grown == ungrown, in every axis and any combination, both families, fp32 and fp64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from growlm.growth.apply import grow_rows
from growlm.growth.certify import certify
from growlm.growth.operators import Growth, plan_growth
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig

AXES = ("d_model", "heads", "ffn", "layers", "vocab")


def config(family: str, **changes: Any) -> ModelConfig:
    base = ModelConfig(
        family=family, d_model=16, n_heads=4, n_kv_heads=2, head_dim=4, d_ff=24, n_layers=2, vocab_size=50
    )
    return base.with_(**changes)


def trained(c: ModelConfig, seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights with nothing special about them: no zero biases, no unit gains."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, p in parameter_table(c).items():
        noise = torch.randn(p.shape, generator=generator, dtype=dtype)
        state[name] = 1 + 0.3 * noise if p.role == "gain" else 0.2 * noise
    return state


def grow(growth: Growth, state: dict[str, torch.Tensor], seed: int = 0) -> dict[str, torch.Tensor]:
    return {
        name: grow_rows(growth, p, "weight", 0, p.shape[0], lambda n, a, b: state[n][a:b], seed)
        for name, p in parameter_table(growth.new).items()
    }


def grown_axes(c: ModelConfig, axes: tuple[str, ...], clone: bool) -> ModelConfig:
    changes: dict[str, int] = {}
    if "d_model" in axes:
        changes["d_model"] = c.d_model * 2 if clone else c.d_model + 7
    if "heads" in axes:
        changes |= {"n_heads": c.n_heads + 2 * c.queries_per_kv, "n_kv_heads": c.n_kv_heads + 2}
    if "ffn" in axes:
        changes["d_ff"] = c.d_ff + 13
    if "layers" in axes:
        changes["n_layers"] = c.n_layers + 3
    if "vocab" in axes:
        changes["vocab_size"] = c.vocab_size + 9
    return c.with_(**changes)


def check(growth: Growth, precision: str, seed: int = 0) -> dict[str, Any]:
    dtype = torch.float64 if precision == "fp64" else torch.float32
    old = trained(growth.old, seed, dtype)
    tokens = torch.randint(0, growth.old.vocab_size, (2, 17), generator=torch.Generator().manual_seed(seed))
    result = certify(growth, old, grow(growth, old), tokens[:, :-1], tokens[:, 1:])
    assert result["precision"] == precision
    assert result["max_dlogit"] <= (1e-10 if precision == "fp64" else 1e-5)
    assert abs(result["dloss"]) <= (1e-10 if precision == "fp64" else 1e-5)
    return result


combinations = [c for n in range(1, 6) for c in itertools.combinations(AXES, n)]


@pytest.mark.parametrize("operator", ["masked", "zero", "clone"])
@pytest.mark.parametrize(
    ("family", "tied"), [("flm", True), ("flm", False), ("llama", True), ("llama", False)]
)
def test_every_combination_of_axes_is_exact(family: str, tied: bool, operator: str) -> None:
    for axes in combinations:
        if operator == "zero" and family == "flm" and "d_model" in axes:
            continue  # refused: test_refused.py
        depth = "masked" if operator == "masked" else "zero_block"
        old = config(family, tied=tied)
        table = GrowthTable.model_validate({"operator": operator, "depth": depth, "certify": "fp64"})
        check(plan_growth(old, grown_axes(old, axes, operator == "clone"), table), "fp64")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_shapes_are_exact(data: st.DataObject) -> None:
    draw = data.draw
    family = draw(st.sampled_from(["flm", "llama"]))
    operator = draw(st.sampled_from(["masked", "zero", "clone"]))
    kv, group, layers = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    d_model, d_ff = draw(st.integers(2, 24)), draw(st.integers(1, 40))
    old = config(
        family, d_model=d_model, n_heads=kv * group, n_kv_heads=kv, d_ff=d_ff, n_layers=layers,
        tied=draw(st.booleans()), logit_mult=draw(st.sampled_from([1.0, 2.0])),
    )  # fmt: skip
    kv2, group2 = kv + draw(st.integers(0, 3)), group + draw(st.integers(0, 2))
    wider = d_model * draw(st.integers(1, 3)) if operator == "clone" else d_model + draw(st.integers(0, 9))
    if operator == "zero" and family == "flm":
        wider = d_model
    new = old.with_(
        d_model=wider, n_heads=kv2 * group2, n_kv_heads=kv2, d_ff=d_ff + draw(st.integers(0, 50)),
        n_layers=layers + draw(st.integers(0, 4)), vocab_size=50 + draw(st.integers(0, 5)),
    )  # fmt: skip
    precision = draw(st.sampled_from(["fp32", "fp64"]))
    table = GrowthTable.model_validate(
        {
            "operator": operator,
            "depth": draw(st.sampled_from(["masked", "zero_block"])),
            "noise": draw(st.sampled_from([0.0, 0.1])),
            "split": draw(st.sampled_from([0.5, 0.3])),
            "certify": precision,
        }
    )
    check(plan_growth(old, new, table), precision)
