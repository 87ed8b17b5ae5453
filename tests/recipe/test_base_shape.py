"""The base shape of a run: what the stages are scaled by; at it every parametrization is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from growlm.errors import RecipeError
from growlm.model.parameters import base_ratios, parameter_table
from growlm.recipe.load import load_recipe

Write = Callable[..., Path]


def test_the_default_is_completep_on_the_first_stage(write: Write) -> None:
    recipe = load_recipe(write(), [])
    first, second = recipe.model_config_of(0), recipe.model_config_of(1)
    assert first.parametrization == second.parametrization == "completep"
    assert (second.mup_base_d_model, second.mup_base_n_layers) == (16, 1)
    assert base_ratios(first) == dict.fromkeys(("d_model", "q", "kv", "ffn"), 1.0)
    assert base_ratios(second) == dict.fromkeys(("d_model", "q", "kv", "ffn"), 2.0)
    assert (first.residual_mult, second.residual_mult) == (1.0, 0.5)


def test_at_the_base_shape_every_parametrization_is_the_same(write: Write) -> None:
    tables = [
        parameter_table(load_recipe(write(), [f"model.parametrization={name}"]).model_config_of(0))
        for name in ("sp", "mup", "completep")
    ]
    assert tables[0] == tables[1] == tables[2]


def test_a_base_width_takes_the_other_widths_along(write: Write) -> None:
    recipe = load_recipe(write(), ["model.mup_base_d_model=8", "model.output_mult=2.0"])
    small, large = recipe.model_config_of(0), recipe.model_config_of(1)
    assert base_ratios(small) == dict.fromkeys(("d_model", "q", "kv", "ffn"), 2.0)
    assert base_ratios(large)["ffn"] == 4.0
    assert (small.logit_mult, large.logit_mult) == (1.0, 0.5)


@pytest.mark.parametrize("setting", ["sp mup_base_d_model", "sp mup_base_n_layers", "mup mup_base_n_layers"])
def test_a_base_that_is_not_read_is_an_error(write: Write, setting: str) -> None:
    name, field = setting.split()
    with pytest.raises(RecipeError, match=f'parametrization "{name}" does not read {field}'):
        load_recipe(write(), [f"model.parametrization={name}", f"model.{field}=8"])
