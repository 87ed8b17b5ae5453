"""Pairs that cannot grow, or cannot be exact: the reason, and the operator that can."""

from __future__ import annotations

from typing import Any

import pytest

from growlm.errors import GrowthError
from growlm.growth.operators import plan_growth
from tests.growth.tools import certificate, grown, table
from tests.model.tiny import config, trained

REFUSED: list[tuple[str, dict[str, Any], str, str, str]] = [
    # family, changes, operator, reason, fix
    (
        "flm",
        {"d_model": 24},
        "zero",
        "mean that LayerNorm subtracts",
        '"masked" or "lemon" (any size), or "clone"',
    ),
    ("llama", {"d_model": 24}, "clone", "copied equally often", 'write d_model = 32, or operator = "masked"'),
    ("llama", {"d_model": 12}, "masked", "only adds units", "write 16 or more"),
    ("llama", {"d_ff": 23}, "zero", "only adds units", "write 24 or more"),
    ("llama", {"n_layers": 1}, "masked", "only adds units", "write 2 or more"),
    ("llama", {"vocab_size": 49}, "masked", "only adds units", "write 50 or more"),
    ("llama", {"n_kv_heads": 1}, "masked", "only adds units", "write 2 or more"),
    ("llama", {"n_kv_heads": 4}, "clone", "group is kept whole", "write n_heads = 8"),
    ("llama", {"head_dim": 8}, "fpi", "no rule for new rotary pairs", "grow n_heads"),
    ("llama", {"head_dim": 8}, "clone", "no rule for new rotary pairs", '"masked" or "zero"'),
    ("llama", {"n_heads": 7, "n_kv_heads": 3}, "masked", "serves as many queries", "a multiple of 3"),
    ("llama", {"head_dim": 5}, "masked", "come in rotary pairs", "keep head_dim = 4"),
    ("llama", {"head_dim": 2}, "masked", "only added", "keep head_dim = 4"),
    ("qwen3", {"head_dim": 8}, "zero", "norm of each head", "grow n_heads"),
    ("neox", {"head_dim": 8}, "masked", "only a part of each head is rotated", "grow n_heads"),
    ("llama", {"d_model": 32, "d_ff": 72}, "staged", "same whole factor", 'operator = "clone"'),
    ("llama", {"d_ff": 36}, "staged", "same whole factor", "write the same multiple everywhere"),
    ("llama", {"rope_theta": 1e6}, "masked", "were trained with it", "keep rope_theta"),
    ("llama", {"tied": False}, "masked", "were trained with it", "keep tied"),
    ("llama", {"family": "flm"}, "masked", "were trained with it", "keep family"),
]


@pytest.mark.parametrize(("family", "changes", "operator", "reason", "fix"), REFUSED)
def test_refused_with_the_reason_and_what_can(
    family: str, changes: dict[str, Any], operator: str, reason: str, fix: str
) -> None:
    c = config(family)
    with pytest.raises(GrowthError) as error:
        plan_growth(c, c.with_(**changes), table(operator=operator))
    assert reason in error.value.why
    assert fix in error.value.fix


@pytest.mark.parametrize("operator", ["masked", "lemon", "clone"])
def test_what_zero_refuses_the_operators_it_names_can_do(operator: str) -> None:
    c = config("flm")
    growth = plan_growth(c, c.with_(d_model=32), table(operator=operator))
    old = trained(c)
    assert certificate(growth, old, grown(growth, old))["max_dlogit"] <= 1e-10


@pytest.mark.parametrize(
    ("depth", "before", "after", "fix"),
    [
        ("stack", 0, 2, 'depth = "random"'),
        ("zero_block", 0, 2, 'depth = "random"'),
        ("midas", 2, 5, "write at most 4"),
        ("lidas", 2, 5, "write at most 4"),
        ("gradual", 2, 5, "write at most 4"),
        ("solar", 2, 5, "write at most 4"),
        ("identity", 2, 5, 'depth = "zero_block"'),
        ("distance", 2, 3, "layer_distances"),
    ],
)
def test_depths_out_of_reach(depth: str, before: int, after: int, fix: str) -> None:
    c = config("llama", n_layers=before)
    with pytest.raises(GrowthError) as error:
        plan_growth(c, c.with_(n_layers=after), table(depth=depth))
    assert fix in error.value.fix


@pytest.mark.parametrize("operator", ["clone", "lemon", "fpi", "aki", "staged", "rms"])
def test_copies_that_can_never_part_are_refused_unless_forced(operator: str) -> None:
    c = config("llama")
    target = c.with_(d_ff=48)
    even = {"operator": operator, "noise": 0.0, "split": 0.5, "moments": "grow"}
    with pytest.raises(GrowthError, match="never part"):
        plan_growth(c, target, table(**even, force=False))
    plan_growth(c, target, table(**even, force=True))
    plan_growth(c, target, table(**even | {"noise": 0.1}, force=False))
    plan_growth(c, target, table(**even | {"moments": "asymmetric"}, force=False))
    plan_growth(c, c.with_(n_layers=4), table(**even, force=False))  # nothing is copied in width
    with pytest.raises(GrowthError, match="never part"):  # where there is no state, state parts nothing
        plan_growth(c, target, table(**even | {"moments": "asymmetric"}, force=False), has_state=False)


def test_ligo_learns_its_own_mixture_of_blocks() -> None:
    c = config("llama")
    with pytest.raises(GrowthError, match="mixtures of blocks"):
        plan_growth(c, c.with_(n_layers=4), table(operator="ligo", depth="interpose"))


def test_zero_padding_a_layer_norm_would_really_move_the_logits() -> None:
    """The refusal is not a formality: let past the check, the logits move."""
    rms, layer = config("llama"), config("flm")
    growth = plan_growth(rms, rms.with_(d_model=24), table(operator="zero"))
    forced = type(growth)(**{**vars(growth), "old": layer, "new": growth.new.with_(family="flm")})
    old = trained(layer)
    assert certificate(forced, old, grown(forced, old))["max_dlogit"] > 1e-2
