"""What a growth by hand grows to: sizes, or a stage of a recipe with its settings. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growlm.errors import RecipeError
from growlm.model.parameters import n_parameters
from growlm.recipe.load import load_recipe
from growlm.recipe.operators import DEFAULTS
from growlm.recipe.schema import GrowthTable, Recipe
from growlm.recipe.shape import ModelConfig
from growlm.recipe.sizes import SIZES, growth_table, parse_sizes


def growth_to(to: str, old: ModelConfig, settings: Mapping[str, Any]) -> tuple[ModelConfig, GrowthTable]:
    """The shape and the settings of a growth of `old`.

    `to` is sizes ("width=2x,n_layers=45"), or `recipe.toml`, the first stage of which that is larger than
    `old`, or `recipe.toml:STAGE`. The stage's own [stages.growth] holds where `settings` say nothing,
    `DEFAULTS` where neither does. Raises RecipeError.
    """
    file, _, stage = to.partition(":")
    if not file.endswith(".toml"):
        target, table = parse_sizes(to, old), growth_table(DEFAULTS | dict(settings))
    else:
        recipe = load_recipe(Path(file))
        index = _stage(recipe, stage, old, to)
        config = recipe.model_config_of(index)
        if config.family != old.family:
            raise RecipeError(
                f"a model of family {old.family} cannot become one of {config.family}", where=to
            )
        target = old.with_(**{size: getattr(config, size) for size in SIZES})
        staged = recipe.growth_of(index).model_dump(exclude_unset=True)
        table = growth_table(DEFAULTS | staged | dict(settings))
    if target == old:
        raise RecipeError("nothing to grow: no size is larger", where=f"--to {to}", fix="e.g. --to depth=2x")
    return target, table


def _stage(recipe: Recipe, name: str, old: ModelConfig, where: str) -> int:
    """The stage of that name; without one, the first that is larger than `old`. Raises RecipeError."""
    names = [stage.name for stage in recipe.stages]
    if name:
        if name not in names:
            raise RecipeError(
                f"no stage is named {name!r}", where=where, fix=f"there are: {', '.join(names)}"
            )
        return names.index(name)
    size = n_parameters(old)
    for index in range(len(names)):
        if n_parameters(recipe.model_config_of(index)) > size:
            return index
    raise RecipeError(
        "no stage of this recipe is larger than the model", where=where, why=f"it has {size:,} parameters"
    )
