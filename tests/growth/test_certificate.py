"""The certificate passes what is exact, refuses what is not, and names where it went wrong."""

from __future__ import annotations

import json

import pytest
import torch

from growlm.errors import GrowthError
from growlm.growth.certify import require
from growlm.growth.operators import Growth, plan_growth
from tests.growth.tools import all_growths, certificate, completep, everything, grown, table
from tests.model.tiny import FAMILIES, State, config, trained


def deep_growth(operator: str = "masked") -> tuple[Growth, State, State]:
    c = config("llama", n_layers=3)
    growth = plan_growth(c, everything(c, multiple=operator == "clone"), table(operator=operator))
    old = trained(c)
    return growth, old, grown(growth, old)


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_an_exact_growth_has_no_drift_in_any_block(family: str, tied: bool) -> None:
    for growth in all_growths(completep(config(family, tied=tied))):
        old = trained(growth.old)
        result = certificate(growth, old, grown(growth, old))
        require(result)
        assert max(layer["drift"] for layer in result["layers"]) <= 1e-12
        assert result["gradient"]["max_error"] <= 1e-12
        assert abs(result["loss_after"] - result["loss_before"]) <= 1e-12
        assert json.loads(json.dumps(result)) == result
        if growth.table.operator in ("masked", "clone", "zero"):
            behind_masks = growth.table.depth == "masked" and growth.table.operator != "zero"
            assert (result["gradient"]["frozen_share"] == 1.0) is behind_masks


@pytest.mark.parametrize("operator", ["masked", "zero", "clone"])
@pytest.mark.parametrize("block", [0, 2, 4])
def test_a_wrong_tensor_is_refused_and_its_block_is_named(operator: str, block: int) -> None:
    growth, old, new = deep_growth(operator)
    assert not growth.layers[block].new
    new[f"blocks.{block}.mlp.down_proj.weight"][3, 3] += 1e-3
    result = certificate(growth, old, new)
    with pytest.raises(GrowthError, match="declared exact") as error:
        require(result)
    source = growth.layers[block].source
    assert f"block {block} (from {source})" in error.value.where
    assert error.value.exit_code == 70


def test_a_wrong_new_block_is_named() -> None:
    growth, old, new = deep_growth()
    assert growth.layers[1].start == "zero"
    new["blocks.1.attn.o_proj.weight"][3, 3] += 1e-3
    with pytest.raises(GrowthError) as error:
        require(certificate(growth, old, new))
    assert "block 1 (from 0)" in error.value.where


def test_a_wrong_final_norm_is_not_blamed_on_a_block() -> None:
    growth, old, new = deep_growth()
    new["norm.weight"][0] *= 1.01
    with pytest.raises(GrowthError) as error:
        require(certificate(growth, old, new))
    assert error.value.where == "the head"


def test_a_forgotten_scale_shows_in_the_gradient_map() -> None:
    """The function is kept and the moments' rule is broken: a gain moved into its reader."""
    growth, old, new = deep_growth("clone")
    new["blocks.0.mlp_norm.weight"] *= 2
    for name in ("gate_proj", "up_proj"):
        new[f"blocks.0.mlp.{name}.weight"] /= 2
    result = certificate(growth, old, new)
    require(result)
    assert result["gradient"]["max_error"] > 1e-3
    assert result["gradient"]["worst"].startswith("blocks.0.mlp")


def test_a_mask_without_ramp_is_not_exact_and_is_measured_as_training_would_start() -> None:
    c = config("llama")
    growth = plan_growth(c, c.with_(d_ff=40), table(operator="masked", ramp_steps=0))
    old = trained(c)
    result = certificate(growth, old, grown(growth, old))
    assert not result["exact"]
    assert result["max_dlogit"] > 1e-3
    assert plan_growth(c, c.with_(d_ff=40), table(operator="zero", ramp_steps=0)).exact


@pytest.mark.parametrize("size", [1.0, 5.0])
def test_rounding_of_fp32_weights_is_told_from_a_wrong_growth(size: float) -> None:
    """Thirds and roots of ratios are not fp32 numbers; with large logits that shows at any precision."""
    c = config("llama")
    old = {name: size * w for name, w in trained(c, dtype=torch.float32).items()}
    for operator, target, precision in (
        ("clone", c.with_(d_model=48, d_ff=31), "fp32"),
        ("clone", c.with_(d_model=48, d_ff=31), "fp64"),
        ("zero", c.with_(d_model=23), "fp64"),
    ):
        growth = plan_growth(c, target, table(operator=operator, certify=precision))
        new = grown(growth, old)
        require(certificate(growth, old, new))
        new["blocks.0.mlp.down_proj.weight"][3, 3] += 0.01 * size
        with pytest.raises(GrowthError):
            require(certificate(growth, old, new))


def test_large_logits_in_fp32_are_judged_in_fp64() -> None:
    c = config("flm")
    old = {name: 5 * w for name, w in trained(c, dtype=torch.float32).items()}
    growth = plan_growth(c, c.with_(d_model=23), table(operator="masked", certify="fp32"))
    result = certificate(growth, old, grown(growth, old))
    require(result)
    assert result["precision"] == "fp64"
    assert result["max_dlogit"] < 1e-9 < result["max_dlogit_fp32"]


@pytest.mark.parametrize("steps", [0, 1])
def test_new_tokens_that_enter_at_once_are_not_exact(steps: int) -> None:
    """The logits of the old tokens stay, their probabilities do not."""
    c = config("llama")
    growth = plan_growth(c, c.with_(vocab_size=100), table(operator="zero", ramp_steps=steps))
    assert not growth.exact
    old = trained(c)
    result = certificate(growth, old, grown(growth, old))
    if steps == 0:
        assert abs(result["dloss"]) > 1e-2


def test_a_masked_growth_is_held_to_1e_minus_10_although_weights_are_fp32() -> None:
    """It moves no weight, so there is no rounding to excuse."""
    c = config("llama")
    growth = plan_growth(c, c.with_(d_ff=40), table(operator="masked", certify="fp64"))
    old = trained(c, dtype=torch.float32)
    new = grown(growth, old)
    require(certificate(growth, old, new))
    new["blocks.0.mlp.up_proj.weight"][0] *= 1 + 1e-4
    with pytest.raises(GrowthError):
        require(certificate(growth, old, new))


@pytest.mark.parametrize("operator", ["masked", "clone"])
def test_logits_that_are_not_numbers_are_refused(operator: str) -> None:
    growth, old, new = deep_growth(operator)
    new["norm.weight"][0] = float("nan")
    with pytest.raises(GrowthError, match="not numbers"):
        require(certificate(growth, old, new))
