"""Which pairs of shapes can grow into each other, and why not: asked by the recipe's check and by growth.

Cheap and torch-free, so that a recipe is refused before anything is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from growlm.recipe.families import FAMILIES
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig

AXES = ("d_model", "n_heads", "n_kv_heads", "d_ff", "n_layers", "vocab_size")
FIXED = ("family", "tied", "rope_theta", "xpos_scale_base", "input_mult", "mup_base_d_model")


@dataclass(frozen=True)
class Refusal:
    """`field` of the grown stage (dotted) that has to change, and to what."""

    field: str
    what: str
    why: str
    fix: str


def refusals(old: ModelConfig, new: ModelConfig, growth: GrowthTable) -> list[Refusal]:
    """Everything that keeps `old` from growing into `new` with these settings; empty if it can."""
    return [refusal for rule in RULES for refusal in rule(old, new, growth)]


def _head_dim(old: ModelConfig, new: ModelConfig, _: GrowthTable) -> Iterator[Refusal]:
    if old.head_dim != new.head_dim:
        yield Refusal(
            "head_dim",
            f"head_dim cannot grow ({old.head_dim} -> {new.head_dim})",
            "rotary frequencies and xPos decays belong to pairs; new pairs would move the old ones",
            "keep model.head_dim and grow n_heads",
        )


def _fixed(old: ModelConfig, new: ModelConfig, _: GrowthTable) -> Iterator[Refusal]:
    for field in FIXED:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            what = f"{field} cannot change in a growth ({before} -> {after})"
            yield Refusal(
                field, what, "the old weights were trained with it", f"keep {field}, or start a new run"
            )


def _never_shrinks(old: ModelConfig, new: ModelConfig, _: GrowthTable) -> Iterator[Refusal]:
    for axis in AXES:
        before, after = getattr(old, axis), getattr(new, axis)
        if after < before:
            what = f"{axis} {after} is smaller than the {before} it grows from"
            yield Refusal(axis, what, "growth only adds units", f"write {before} or more")


def _kv_groups(old: ModelConfig, new: ModelConfig, _: GrowthTable) -> Iterator[Refusal]:
    if new.n_heads % new.n_kv_heads or old.n_heads % old.n_kv_heads or new.n_kv_heads < old.n_kv_heads:
        return
    if new.queries_per_kv < old.queries_per_kv:
        yield Refusal(
            "n_heads",
            f"{new.queries_per_kv} query heads for each key/value head, {old.queries_per_kv} before",
            "query heads stay with their key/value head: its group is kept whole",
            f"write n_heads = {new.n_kv_heads * old.queries_per_kv} for {new.n_kv_heads} key/value heads",
        )


def _clone_multiples(old: ModelConfig, new: ModelConfig, growth: GrowthTable) -> Iterator[Refusal]:
    if growth.operator == "clone" and new.d_model > old.d_model and new.d_model % old.d_model:
        up = -(-new.d_model // old.d_model) * old.d_model
        yield Refusal(
            "d_model",
            f"clone cannot take d_model from {old.d_model} to {new.d_model}",
            "norm statistics stay the same only if every unit is copied equally often",
            f'write d_model = {up}, or operator = "masked"',
        )


def _zero_under_layernorm(old: ModelConfig, new: ModelConfig, growth: GrowthTable) -> Iterator[Refusal]:
    family = FAMILIES.get(old.family)
    if growth.operator == "zero" and new.d_model > old.d_model and family and family.norm == "layer":
        yield Refusal(
            "growth.operator",
            f"zero cannot take d_model from {old.d_model} to {new.d_model} under LayerNorm",
            "zero-padding shifts the mean that LayerNorm subtracts, whatever its gain",
            'write operator = "masked" (any size) or "clone" (multiples)',
        )


RULES: tuple[Callable[[ModelConfig, ModelConfig, GrowthTable], Iterator[Refusal]], ...] = (
    _head_dim,
    _fixed,
    _never_shrinks,
    _kv_groups,
    _clone_multiples,
    _zero_under_layernorm,
)
