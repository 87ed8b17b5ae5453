"""The search space: which fields of a recipe take which values. No torch, no optuna.

A field is written as for `--set`, its values as a range of twos or a list:

    optim.lr=2^-10..2^-6                2^-10, 2^-9, 2^-8, 2^-7, 2^-6
    model.init_std=0.01,0.02,0.04
    schedule.kind=wsd,cosine
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from annotated_types import Ge, Le
from pydantic import ValidationError

from growlm.errors import RecipeError
from growlm.recipe.check import check_recipe
from growlm.recipe.keys import Key, field_at, show_key, table_at, types_of
from growlm.recipe.override import apply
from growlm.recipe.problem import problems_of, raise_all
from growlm.recipe.schema import Recipe

Value = float | int | bool | str
Point = tuple[Value, ...]
"""One value for every axis of the space, in its order."""

MOST_POINTS = 10_000
_POWER = re.compile(r"2\^([+-]?\d+(?:\.\d+)?)")
_FIXED = ("name", "seed", "init", "data.path", "budget", "checkpoint", "timeouts", "eval", "train.device")
_SHAPE = (
    "d_model",
    "n_heads",
    "n_kv_heads",
    "d_ff",
    "head_dim",
    "n_layers",
    "vocab_size",
    "tokens",
    "layout",
    "mup_base_d_model",
    "mup_base_hidden",
    "mup_base_n_layers",
)


@dataclass(frozen=True)
class Axis:
    """One field and its values: ascending if they are numbers."""

    key: Key
    name: str
    """The key as it is written: `optim.lr`."""
    values: tuple[Value, ...]
    span: bool
    """Whether they are notches of a range, between which a sampler may draw, and not a list."""

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    @property
    def log(self) -> bool:
        """Whether the values are positive numbers, which are compared by their ratios."""
        return self.numeric and all(float(v) > 0 for v in self.values)

    def position(self, value: Value) -> float:
        """Where a number lies, in notches of 2 on a logarithmic axis."""
        return math.log2(float(value)) if self.log else float(value)

    def is_bound(self, value: Value) -> bool:
        """Whether the schema allows nothing beyond this value, so that an optimum there is no edge."""
        field = field_at(self.key)
        limits = (
            [m.ge if isinstance(m, Ge) else m.le for m in field.metadata if isinstance(m, Ge | Le)]
            if field
            else []
        )
        return value in limits


@dataclass(frozen=True)
class Space:
    """All axes."""

    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """Points of the grid."""
        return math.prod(len(axis.values) for axis in self.axes)

    def grid(self) -> list[Point]:
        """Every combination, in order."""
        return list(itertools.product(*(axis.values for axis in self.axes)))

    def named(self, point: Point) -> dict[str, Value]:
        """The values of a point by field."""
        return {axis.name: value for axis, value in zip(self.axes, point, strict=True)}


def default_space(recipe: Recipe) -> Space:
    """What FLM-101B searched (2309.03852, section 3.2): learning rate, initial deviation and multiplier of
    the logits, in notches of 2 around the recipe's own values."""
    lr, std, output = recipe.optim.lr, recipe.model.init_std, recipe.model.output_mult
    return Space(
        tuple(
            _around(name, value, notches)
            for name, value, notches in (
                ("optim.lr", lr, 2),
                ("model.init_std", std, 1),
                ("model.output_mult", output, 1),
            )
        )
    )


def parse_space(recipe: Recipe, texts: Sequence[str]) -> Space:
    """The space that `--search` texts describe, on a proxy's recipe; without texts the default.

    Raises RecipeError for a field that there is not, that would make another model or other data, or
    values that it does not take.
    """
    axes = tuple(_axis(recipe, text) for text in texts) if texts else default_space(recipe).axes
    names = [axis.name for axis in axes]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise RecipeError(f"{name} is searched twice", where=_where(texts[index]), fix="write it once")
    space = Space(axes)
    if space.size > MOST_POINTS:
        raise RecipeError(
            f"the grid has {space.size} points, the most is {MOST_POINTS}",
            where="--search",
            fix="fewer values, or ranges with --sampler qmc --trials 64",
        )
    return space


def recipe_at(recipe: Recipe, values: dict[str, Value]) -> Recipe:
    """The recipe with the values of a point. Raises RecipeError if it does not allow them."""
    data = recipe.model_dump(exclude_unset=True)
    for name, value in values.items():
        apply(data, f"{name}={_toml(value)}")
    try:
        found = Recipe.model_validate(data)
    except ValidationError as error:
        raise_all(problems_of(error, data), lambda key: show_key(key, data))
        raise
    check_recipe(found)
    return found


def _around(name: str, value: float, notches: int) -> Axis:
    values = tuple(value * 2.0**n for n in range(-notches, notches + 1))
    key = tuple(name.split("."))
    return Axis(key, name, values, span=True)


def _axis(recipe: Recipe, text: str) -> Axis:
    """One `--search field=values`."""
    name, equals, given = (part.strip() for part in text.partition("="))
    if not equals or not name or not given:
        raise RecipeError(
            "a searched field is a dotted key and its values",
            where=_where(text),
            fix='write --search "optim.lr=2^-10..2^-6" or --search "model.init_std=0.01,0.02,0.04"',
        )
    low, dots, high = given.partition("..")
    try:
        key = _key(recipe, name)
        values = _range(low, high) if dots else [part.strip() for part in given.split(",")]
        typed = tuple(dict.fromkeys(_typed(recipe, name, key, value) for value in values))
    except RecipeError as error:
        fix = error.fix.replace("--set", "--search")
        raise RecipeError(error.what, where=_where(text), why=error.why, fix=fix) from error
    axis = Axis(key, name, typed, span=bool(dots))
    return replace(axis, values=tuple(sorted(typed, key=float))) if axis.numeric else axis


def _key(recipe: Recipe, name: str) -> Key:
    """The key that `name` stands for. Raises RecipeError for one that must not be searched."""
    key = apply(recipe.model_dump(), f"{name}=0").key
    if any(name == fixed or name.startswith(f"{fixed}.") for fixed in _FIXED) or key[-1] in _SHAPE:
        raise RecipeError(
            f"{name} is not searched",
            why="trials compare only as the same model on the same data for the same time",
            fix="search fields of optim, schedule, model or data.mixture; the width of the proxy is --width",
        )
    mapping = field_at(key[:-1])
    if field_at(key) is None and (mapping is None or table_at(key[:-1])):
        recipe_at(recipe, {name: 0})  # says what may have been meant
    return key


def _range(low: str, high: str) -> list[float]:
    """Every notch of 2 from `low` to `high`."""
    try:
        first, last = _number(low.strip()), _number(high.strip())
    except ValueError:
        first = last = math.nan
    if not 0 < first < last < math.inf:
        raise RecipeError(
            "a range goes from a positive number to a larger one, in notches of 2",
            fix='write --search "optim.lr=2^-10..2^-6"',
        )
    return [first * 2.0**n for n in range(math.floor(math.log2(last / first) + 1e-9) + 1)]


def _number(text: str) -> float:
    power = _POWER.fullmatch(text)
    return 2.0 ** float(power[1]) if power else float(text)


def _typed(recipe: Recipe, name: str, key: Key, value: str | float) -> Value:
    """The value as the field takes it."""
    if isinstance(value, str) and _POWER.fullmatch(value):
        value = _number(value)
    field = field_at(key)
    if isinstance(value, float) and value.is_integer() and field and types_of(field.annotation)[0] is int:
        value = int(value)
    found: Any = recipe_at(recipe, {name: value}).model_dump()
    for step in key:
        found = found[step]
    return found


def _toml(value: Value) -> str:
    """As it is written after `--set field=`. A whole number stays one: the schema has fields for those."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else value


def _where(text: str) -> str:
    return f"--search {text}"


def axis_text(axis: Axis) -> str:
    """An axis as it is written after --search, to the last digit."""
    notches = zip(axis.values, axis.values[1:], strict=False)
    if axis.log and len(axis.values) > 1 and all(math.isclose(float(b) / float(a), 2) for a, b in notches):
        return f"{axis.name}={_exact(axis.values[0])}..{_exact(axis.values[-1])}"
    return f"{axis.name}={','.join(map(_exact, axis.values))}"


def _exact(value: Value) -> str:
    if isinstance(value, float) and value > 0 and math.log2(value).is_integer():
        return f"2^{math.log2(value):.0f}"
    return _toml(value)


def shown(values: dict[str, Value]) -> str:
    """`optim.lr=2^-9 model.init_std=0.02`, for people."""
    return "  ".join(f"{name}={short(value)}" for name, value in values.items())


def short(value: Value) -> str:
    """A value as it is shown: powers of two as such where that is shorter."""
    if isinstance(value, float) and value > 0:
        power = round(math.log2(value))
        if abs(power) > 3 and math.isclose(value, 2.0**power):
            return f"2^{power}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
