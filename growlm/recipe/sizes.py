"""What people say of a growth: sizes as numbers, factors like 2x or shorthands; and settings."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, get_args

from pydantic import ValidationError

from growlm.errors import RecipeError
from growlm.recipe.describe import expected
from growlm.recipe.keys import did_you_mean, types_of
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig

SIZES = (
    "d_model", "n_heads", "n_kv_heads", "d_ff", "head_dim", "n_layers", "vocab_size", "max_positions",
)  # fmt: skip
SHORTHANDS = {"width": ("d_model", "n_heads", "n_kv_heads", "d_ff"), "depth": ("n_layers",)}

LARGEST = 2**31
"""No size of a model is larger."""

EXAMPLE = 'write e.g. "width=2x,depth=1.5x" or "d_model=1152,n_heads=18,n_kv_heads=6,d_ff=3072"'


def parse_sizes(sizes: str | Mapping[str, int | str], old: ModelConfig) -> ModelConfig:
    """The shape that `old` is asked to grow to: "d_model=1152,n_layers=1.5x", or the same as a mapping.

    A value is a number or a factor of the old size. `width` stands for d_model, n_heads, n_kv_heads and d_ff,
    `depth` for n_layers; no size may be given twice. Without `n_kv_heads`, a model with one query
    head for each key/value head keeps it so. Raises RecipeError.
    """
    asked = _pairs(sizes) if isinstance(sizes, str) else sizes
    new: dict[str, int] = {}
    for name, value in asked.items():
        for size in SHORTHANDS.get(name, (name,)):
            if size in new:
                raise _twice(size, f"{name}={value}")
            new[size] = _value(size, value, old)
    if "n_heads" in new and "n_kv_heads" not in new and old.queries_per_kv == 1:
        new["n_kv_heads"] = new["n_heads"]
    target = old.with_(**new)
    if target.n_heads % target.n_kv_heads:
        raise RecipeError(
            f"{target.n_heads} query heads cannot share {target.n_kv_heads} key/value heads",
            where="n_heads, n_kv_heads",
            fix=f"make n_heads a multiple of {target.n_kv_heads}",
        )
    return target


def growth_table(settings: Mapping[str, Any]) -> GrowthTable:
    """The settings of a growth. Raises RecipeError for one that does not exist or has no such value."""
    try:
        return GrowthTable.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise _no_setting(str(first["loc"][0]), first["input"]) from None


def _no_setting(name: str, value: Any) -> RecipeError:
    """What is wrong with a setting that does not exist or has no such value."""
    field = GrowthTable.model_fields.get(name)
    if field is None:
        close = did_you_mean(name, GrowthTable.model_fields)
        fix = f"did you mean {close}?" if close else f"there are: {', '.join(GrowthTable.model_fields)}"
        return RecipeError(f"there is no setting {name}", where=name, fix=fix)
    close = did_you_mean(str(value), map(str, get_args(types_of(field.annotation)[0])))
    meant = f"did you mean {close}? " if close else ""
    return RecipeError(
        f"{name} = {value!r} is not allowed", where=name, fix=f"{meant}write {expected(field)}"
    )


def _pairs(text: str) -> dict[str, str]:
    """name=value, separated by commas. Raises RecipeError for anything else, and for a name given twice."""
    pairs: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name in pairs:
            raise _twice(name, text)
        if not (name and equals and value):
            raise RecipeError(f"{part.strip()!r} is not a new size", where=text, fix=EXAMPLE)
        pairs[name] = value
    return pairs


def _twice(name: str, where: str) -> RecipeError:
    return RecipeError(
        f"{name} is given twice",
        where=where,
        why="; ".join(f"{short} stands for {', '.join(sizes)}" for short, sizes in SHORTHANDS.items()),
        fix="give each size once",
    )


def _value(size: str, value: int | str, old: ModelConfig) -> int:
    """A number, or a factor of the old size, as a whole number above 0. Raises RecipeError."""
    if size not in SIZES:
        raise RecipeError(
            f"{size!r} is not a size of a model", fix=f"write one of {', '.join((*SHORTHANDS, *SIZES))}"
        )
    text, before = str(value), getattr(old, size)
    try:
        if "e" in text.lower():  # an exponent can be one that never ends
            raise ValueError
        number = Fraction(text[:-1]) * before if text.endswith("x") and before else Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise RecipeError(f"{size} = {text} is not a size", why=f"it was {before}", fix=EXAMPLE) from None
    if text.endswith("x") and number < before:
        raise RecipeError(f"{size} = {text} makes it smaller", why="growth only adds units", fix=EXAMPLE)
    if number > LARGEST:
        raise RecipeError(f"{size} = {text} is too large", why=f"it was {before}", fix=f"at most {LARGEST}")
    if number.denominator != 1 or number < 1:
        near = max(1, round(number))
        raise RecipeError(
            f"{size} = {text} is {float(number):g}",
            why=f"it was {before}, and a size is a whole number above 0",
            fix=f"write {size}={near}",
        )
    return int(number)
