"""The target's recipe with the values that a search found on its proxy. No torch."""

from __future__ import annotations

import textwrap
from typing import Any

from growlm.errors import RecipeError
from growlm.recipe.check import check_recipe
from growlm.recipe.override import apply
from growlm.recipe.schema import Recipe
from growlm.recipe.template import recipe_toml
from growlm.search.proxy import peak_lr, with_base
from growlm.search.space import Space, Value, short

LEARNING_RATE = "optim.lr"
_WIDTH = 106


def transferred(recipe: Recipe, target: int, values: dict[str, Value]) -> Recipe:
    """The recipe with these values, and the base shape that they belong to written out.

    The learning rate is that of stage `target`: all others are multiplied by what it is multiplied by.
    """
    data = with_base(recipe).model_dump(exclude_unset=True)
    for name, value in values.items():
        if name == LEARNING_RATE:
            _scale_rates(data, float(value), float(value) / peak_lr(recipe, target))
        else:
            apply(data, f"{name}={value if isinstance(value, str) else repr(value).lower()}")
    found = Recipe.model_validate(data)
    check_recipe(found)
    return found


def transferred_toml(recipe: Recipe, found: Recipe, about: list[str], values: dict[str, Value]) -> str:
    """The transferred recipe `found` as TOML that says where its values come from."""
    before = recipe.model_dump()
    lines = [line for text in about for line in textwrap.wrap(text, _WIDTH)] + ["From the search:"]
    for name, value in values.items():
        lines.append(f"  {name} = {short(value)}, was {short(_at(before, name, recipe))}")
    lines += [f"  {change}" for change in _scaled(recipe, found)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n" + recipe_toml(found)


def refuse_overridden(recipe: Recipe, target: int, space: Space) -> None:
    """Raise RecipeError for a searched field that a stage of the target overrides."""
    if recipe.mixture_of(target) is recipe.data.mixture:
        return
    for axis in space.axes:
        if axis.name.startswith("data.mixture"):
            stage = recipe.stages[target].name
            raise RecipeError(
                f"{axis.name} means nothing to stage {stage}, which has a mixture of its own",
                where=f"--search {axis.name}",
                fix="remove the mixture of the stages, or search other fields",
            )


def _scale_rates(data: dict[str, Any], value: float, factor: float) -> None:
    own = [stage for stage in data["stages"] if stage.get("lr") is not None]
    data["optim"]["lr"] = data["optim"]["lr"] * factor if own else value
    for stage in own:
        stage["lr"] *= factor


def _scaled(recipe: Recipe, found: Recipe) -> list[str]:
    """The learning rates of single stages that went along."""
    pairs = zip(recipe.stages, found.stages, strict=True)
    return [
        f"stages.{old.name}.lr = {new.lr:.6g}, was {old.lr:.6g}"
        for old, new in pairs
        if old.lr and new.lr != old.lr
    ]


def _at(data: Any, name: str, recipe: Recipe) -> Value:
    for word in name.split("."):
        if isinstance(data, list):
            data = data[[stage.name for stage in recipe.stages].index(word)]
        else:
            data = data[word]
    return data
