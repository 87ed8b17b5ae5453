"""From a file and overrides to a validated recipe, and where each of its values came from."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from growlm.errors import RecipeError
from growlm.recipe import override
from growlm.recipe.check import problems
from growlm.recipe.keys import Key, leaves, show_key
from growlm.recipe.presets import presets
from growlm.recipe.problem import Problem, problems_of, raise_all
from growlm.recipe.schema import Recipe
from growlm.recipe.source import Layer, merge, read_layers, whole_value


@dataclass(frozen=True)
class Resolved:
    """A recipe and, for each of its keys, its origin: `default`, `file:line` or `--set a.b=c`."""

    recipe: Recipe
    provenance: dict[str, str]


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read, merge, override and validate a recipe; nothing is touched.

    `path` is a TOML file or the name of a preset, `overrides` are `a.b=value` texts as given to `--set`.
    Raises `RecipeError` that lists every problem with its file and line and what to write instead.
    """
    return resolve_recipe(path, overrides).recipe


def resolve_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Resolved:
    """Like `load_recipe`, with the origin of every value."""
    named = presets().get(str(path))
    layers = read_layers(named if named and not Path(path).is_file() else Path(path))
    data: dict[str, Any] = {}
    for layer in layers:
        data = merge(data, layer.data)
    data = copy.deepcopy(data)  # merging shares tables with the layers, overrides write into it
    applied = [override.apply(data, text) for text in overrides]
    if not data:
        raise RecipeError("the recipe is empty", where=str(path), fix="write one with `growlm init PATH`")
    origin = _Origin(layers, applied)
    raise_all(_too_large(data), origin.place)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise_all(problems_of(error, data), origin.place)
        raise
    raise_all(problems(recipe), origin.place)
    written = leaves(data)
    provenance = {
        show_key(key, data): origin.place(key) if key in written else "default"
        for key in leaves(recipe.model_dump())
    }
    return Resolved(recipe, provenance)


def resolve_hash(recipe: Recipe) -> str:
    """Hash of a resolved recipe: equal exactly when every field is (64 hex digits)."""
    text = json.dumps(recipe.model_dump(), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _too_large(data: dict[str, Any]) -> list[Problem]:
    """Whole numbers that TOML does not have; Python's have no end, and no float holds them."""
    why = "whole numbers of TOML have 64 bits"
    return [
        Problem(key, "a number is too large", "write a smaller one", why)
        for key, value in leaves(data).items()
        for number in (value if isinstance(value, list) else [value])
        if isinstance(number, int) and not -(2**63) <= number < 2**63
    ]


@dataclass(frozen=True)
class _Origin:
    layers: list[Layer]
    overrides: list[override.Override]

    def place(self, key: Key) -> str:
        """Where the value of `key` was written, or should have been."""
        for given in reversed(self.overrides):
            if key[: len(given.key)] == given.key:
                return f"--set {given.text}"
        whole = whole_value(key)
        owners = [layer for layer in self.layers if whole in layer.lines][-1:] or self.layers
        for depth in range(len(key), 0, -1):
            for layer in reversed(owners):
                if key[:depth] in layer.lines:
                    return layer.place(key[:depth])
            for given in self.overrides:
                if given.key[:depth] == key[:depth]:
                    return f"--set {given.text}"
        return self.layers[-1].place(())
