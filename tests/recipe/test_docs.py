"""What is generated from the schema is up to date, valid and complete."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from growlm.recipe.check import check_recipe
from growlm.recipe.docs import recipe_json_schema, recipe_markdown, tables
from growlm.recipe.load import load_recipe
from growlm.recipe.presets import preset_path, presets
from growlm.recipe.schema import Recipe
from growlm.recipe.template import recipe_toml

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == recipe_markdown(), "run: python -m growlm.recipe.docs > docs/recipe.md"


def test_every_field_is_described() -> None:
    for _, table in [("", Recipe), *tables(Recipe)]:
        assert table.__doc__
        nested = {name for name, field in table.model_fields.items() if "Table" in str(field.annotation)}
        assert all(field.description for name, field in table.model_fields.items() if name not in nested)


@pytest.mark.parametrize("name", list(presets()))
def test_a_template_of_a_preset_loads_to_the_preset(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(preset_path(name))
    path = tmp_path / "r.toml"
    path.write_text(recipe_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    check_recipe(recipe)


@pytest.mark.parametrize("name", ["demo", "laptop", "flm-base"])
def test_presets_are_bilingual_and_grow_twice_in_different_axes(name: str) -> None:
    recipe = load_recipe(preset_path(name))
    assert recipe.data.mixture == {"en": 53.5, "zh": 46.5}
    assert len(recipe.stages) == 3
    shapes = [recipe.model_config_of(index).to_dict() for index in range(3)]
    grown = [{axis for axis in old if old[axis] != new[axis]} for old, new in pairwise(shapes)]
    assert all(grown)
    assert grown[0] != grown[1]
    assert max(map(len, grown)) > 1


@pytest.mark.parametrize("name", ["flm-101b", "tele-flm-1t"])
def test_published_runs_grow_twice_with_heads_of_one_size(name: str) -> None:
    recipe = load_recipe(preset_path(name))
    shapes = [recipe.model_config_of(index) for index in range(3)]
    for old, new in pairwise(shapes):
        assert old.d_model < new.d_model
        assert old.n_layers < new.n_layers
    assert all(shape.head_dim == 128 == shape.d_model // shape.n_heads for shape in shapes)


def test_the_json_schema_names_every_table_and_extends() -> None:
    schema = recipe_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"extends", *Recipe.model_fields}


def test_a_recipe_made_in_python_is_checked_by_key(write: Callable[..., Path]) -> None:
    recipe = load_recipe(write())
    broken = recipe.model_copy(update={"stages": [recipe.stages[1], recipe.stages[0]]})
    with pytest.raises(Exception, match=r"where: *stages\.a\.d_model"):
        check_recipe(broken)
