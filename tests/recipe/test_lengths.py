"""Stage lengths by Prop-alpha (MIDAS, 2409.19044), against the formula written out here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from growlm.errors import RecipeError
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from growlm.recipe.template import recipe_toml
from tests.recipe.conftest import BASE

Write = Callable[..., Path]

NO_TOKENS = BASE.replace("tokens = 1024\n", "")
STEP = 64  # tokens: 4 sequences of 16


def shared(write: Write, total: int, *overrides: str) -> Recipe:
    return load_recipe(write(NO_TOKENS), [f"schedule.total_tokens={total}", *overrides])


def three_stages(write: Write) -> Path:
    third = NO_TOKENS[NO_TOKENS.rindex("[[stages]]") :].replace('"b"', '"c"')
    return write(NO_TOKENS + third)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0, 1.5])
def test_lengths_are_proportional_to_a_power_of_the_stage(write: Write, alpha: float) -> None:
    total = 1000 * STEP
    overrides = [f"schedule.total_tokens={total}", f"schedule.prop_alpha={alpha}"]
    recipe = load_recipe(three_stages(write), overrides)
    sizes = [1.0, 2.0**alpha, 3.0**alpha]
    assert sum(stage.steps for stage in recipe.stages) == 1000
    for stage, size in zip(recipe.stages, sizes, strict=True):
        assert stage.tokens == stage.steps * STEP
        assert abs(stage.steps - 1000 * size / sum(sizes)) <= 1


def test_stages_of_other_batches_end_within_a_step_of_their_share(write: Write) -> None:
    recipe = shared(write, 100_000, "stages.b.batch_size=24", "stages.b.micro_batch_size=8")
    first, second = recipe.stages
    assert abs((first.tokens or 0) - 100_000 / 3) <= first.tokens_per_step / 2
    assert abs(first.steps * STEP + second.steps * 24 * 16 - 100_000) <= 24 * 16 / 2


def test_the_template_says_the_total_and_loads_to_the_same_recipe(write: Write, tmp_path: Path) -> None:
    recipe = shared(write, 6400)
    path = tmp_path / "template.toml"
    path.write_text(recipe_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert "\ntokens = " not in path.read_text(encoding="utf-8").partition("[[stages]]")[2]
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_two_rules_for_one_length_are_refused(write: Write) -> None:
    for overrides in (["stages.a.tokens=640"], ["stages.a.tokens=640", "stages.b.tokens=640"]):
        with pytest.raises(RecipeError, match="stages write tokens of their own") as caught:
            shared(write, 6400, *overrides)
        assert "leave tokens out of every stage" in caught.value.fix


def test_a_stage_without_a_length_is_refused(write: Write) -> None:
    with pytest.raises(RecipeError, match='stage 1 "b" does not say how long it trains') as caught:
        load_recipe(write(NO_TOKENS), ["stages.a.tokens=640"])
    assert "schedule.total_tokens" in caught.value.fix
