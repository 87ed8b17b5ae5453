"""The coordinate check passes what is right, and fails `sp` and every rule that is broken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from growlm.errors import RecipeError
from growlm.model.parameters import Parameter, parameter_table
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.search.coordcheck import DEFAULT, Check, Sweep, coordinate_check
from growlm.search.coordinates import KINDS, Steps, coordinates

FEW: dict[str, Any] = {"widths": (64, 128, 256), "depths": (2, 4, 8), "steps": 4, "seeds": 4}
NARROW: dict[str, Any] = FEW | {"depths": (2, 4), "steps": 3}
SHALLOW: dict[str, Any] = FEW | {"widths": (64, 128), "steps": 3}


def recipe(**model: Any) -> Recipe:
    data: dict[str, Any] = copy.deepcopy(DEFAULT)
    data["model"] |= model
    return Recipe.model_validate(data)


def follows(sweep: Sweep, kind: str, measure: int = 0) -> list[float]:
    """The powers of the size after the first step."""
    return sweep.slopes[measure, 1:, KINDS.index(kind)].tolist()


def worst(check: Check) -> str:
    """For messages: what is broken, and by how much."""
    places = [(s, *at) for s in check.sweeps if s.judged for at in np.argwhere(s.broken)]
    return ", ".join(f"{s.axis} {KINDS[k]} step {t + 1}: {s.slopes[m, t, k]:+.2f}" for s, m, t, k in places)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "tied", "optimizer"),
    [("llama", True, "adamw"), ("flm", False, "adamw"), ("neox", False, "adamw"), ("qwen3", True, "muon")],
)
def test_completep_passes(family: str, tied: bool, optimizer: Any) -> None:
    """With the settings of the command, which draw 8 seeds at up to 16 times the width and the depth."""
    check = coordinate_check(recipe(family=family, tied=tied), "completep", optimizer)
    assert check.passed, worst(check)


def test_completep_passes_and_sp_fails() -> None:
    right = coordinate_check(None, "completep", **FEW)
    assert right.passed, worst(right)
    wrong = coordinate_check(None, "sp", **FEW)
    width, depth = wrong.sweeps
    assert not width.passed
    assert not depth.passed
    assert min(follows(width, "stream")) > 0.5
    assert min(follows(depth, "stream", measure=1)) > 0.3


def test_mup_is_judged_by_width_alone() -> None:
    check = coordinate_check(None, "mup", **FEW)
    assert check.passed, worst(check)
    assert [sweep.judged for sweep in check.sweeps] == [True, False]
    assert not check.sweeps[1].passed


def test_logits_of_a_random_readout_fall_by_the_root_of_the_width() -> None:
    """Which is why they are let off before the first update, and only from falling."""
    check = coordinate_check(None, "mup", **NARROW)
    first = check.sweeps[0].slopes[0, 0, KINDS.index("logits")]
    assert first == pytest.approx(-0.5, abs=0.05)
    assert not check.sweeps[0].broken[0, 0].any()
    rising = replace(check.sweeps[0], logs=-check.sweeps[0].logs)
    assert rising.broken[0, 0, KINDS.index("logits")]


# --- broken rules ---------------------------------------------------------------------------------------

Rule = Callable[[Parameter, float], Parameter]


def hidden(**change: Callable[[Parameter, float], float]) -> Rule:
    """A rule that is wrong for hidden matrices, whose width multiplier is m."""
    return lambda p, m: replace(p, **{f: of(p, m) for f, of in change.items()}) if p.role == "hidden" else p


def role(name: str, **change: Callable[[Parameter, float], float]) -> Rule:
    return lambda p, m: replace(p, **{f: of(p, m) for f, of in change.items()}) if p.role == name else p


RULES: dict[str, Rule] = {
    "none": lambda p, _: p,
    "learning rate not divided": hidden(lr_mult=lambda _, __: 1.0),
    "learning rate divided twice": hidden(lr_mult=lambda p, _: p.lr_mult**2),
    "initial values not scaled": hidden(std=lambda p, m: p.std * m**0.5),
    "initial values divided by m": hidden(std=lambda p, m: p.std / m**0.5),
    "head's learning rate divided too": role("unembedding", lr_mult=lambda _, m: 1 / m),
    "embedding's learning rate divided": role("embedding", lr_mult=lambda _, m: 1 / m),
    "embedding's initial values scaled": role("embedding", std=lambda p, m: p.std / m**0.5),
}


@pytest.mark.parametrize("name", RULES)
def test_a_broken_rule_of_width_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is what a large framework did: logits divided by m, and the head's learning rate too."""

    def table(config: ModelConfig) -> dict[str, Parameter]:
        m = config.d_model / (config.mup_base_d_model or config.d_model)
        return {n: RULES[name](p, m) for n, p in parameter_table(config).items()}

    monkeypatch.setattr("growlm.model.decoder.parameter_table", table)
    monkeypatch.setattr("growlm.train.optimizer.parameter_table", table)
    check = coordinate_check(None, "mup", **NARROW)
    assert check.passed == (name == "none"), worst(check)


def test_logits_that_are_not_divided_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Recipe.model_config_of
    monkeypatch.setattr(Recipe, "model_config_of", lambda self, i: right(self, i).with_(logit_mult=1.0))
    check = coordinate_check(None, "mup", **NARROW)
    assert not check.passed
    assert min(follows(check.sweeps[0], "logits")) > 0.5


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_a_residual_multiplier_that_is_missing_or_a_root_is_caught(
    power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1/sqrt(layers) is the rule of 2310.02244, which needs learning rates by depth, and here are none."""
    right: Any = vars(ModelConfig)["residual_mult"].fget
    monkeypatch.setattr(ModelConfig, "residual_mult", property(lambda self: right(self) ** power))
    check = coordinate_check(None, "completep", **SHALLOW)
    assert not check.sweeps[1].passed
    assert min(follows(check.sweeps[1], "stream", measure=1)) > 0.15


def test_muon_without_the_spectral_condition_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As large as AdamW's at every width, 0.2 sqrt(max(out, in)), where lr is not divided by sqrt(m)."""

    def table(config: ModelConfig) -> dict[str, Parameter]:
        found = parameter_table(config).items()
        return {n: replace(p, muon=0.2 * max(p.shape) ** 0.5) if p.muon else p for n, p in found}

    monkeypatch.setattr("growlm.train.optimizer.parameter_table", table)
    check = coordinate_check(None, "mup", "muon", **NARROW)
    assert not check.sweeps[0].passed


# --- the measure ----------------------------------------------------------------------------------------


def test_what_is_measured_at_the_start_is_what_the_initial_values_say() -> None:
    """Embedding: mean |normal(0, std)|; scores: of queries and keys of head_dim E, each of variance v."""
    config = recipe(init_std=0.05).model_config_of(0).with_(d_model=256, n_heads=16, n_kv_heads=8)
    made = recipe(init_std=0.05)
    found = np.mean(
        [coordinates(config, seed, Steps(1, 1e-3, made.optim), 1.0)[0, 0] for seed in range(8)], 0
    )
    assert found[KINDS.index("embedding")] == pytest.approx(0.05 * (2 / np.pi) ** 0.5, rel=0.05)
    assert found[KINDS.index("norm")] == pytest.approx((2 / np.pi) ** 0.5, rel=0.05)
    ratio = config.d_model / (config.mup_base_d_model or 1)
    v = 256 * 0.05**2 / ratio
    assert found[KINDS.index("scores")] == pytest.approx(v * (2 / np.pi) ** 0.5, rel=0.15)


def test_the_slope_is_the_power() -> None:
    sizes = (64, 128, 256)
    logs = np.zeros((2, 3, len(KINDS), 3)) + 0.7 * np.log(sizes) + 5
    sweep = Sweep("d_model", sizes, True, logs)
    assert sweep.slopes == pytest.approx(np.full((2, 3, len(KINDS)), 0.7))
    logs[:, 2] = -np.inf
    assert sweep.broken[:, 2].all()


def test_json_has_no_numbers_that_are_none() -> None:
    check = coordinate_check(None, "mup", widths=(64, 128), depths=(2, 4), steps=2, seeds=1)
    sweep = check.to_dict()["sweeps"][0]
    assert sweep["sizes"] == [64, 128]
    assert np.array(sweep["kinds"]["mlp"]["mean_abs"]).shape == (2, 2)
    assert sweep["kinds"]["mlp"]["slopes_of_change"][0] is None


@pytest.mark.parametrize(
    ("sizes", "what"),
    [({"widths": [64, 70]}, "a width of 70 cannot"), ({"depths": [4]}, "one size has no slope")],
)
def test_sizes_that_cannot_be(sizes: Any, what: str) -> None:
    with pytest.raises(RecipeError, match=what):
        coordinate_check(None, **sizes)
