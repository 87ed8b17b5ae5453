"""Which pairs of shapes can grow into each other, and why not: asked by the recipe's check and by growth.

Cheap and torch-free, so that a recipe is refused before anything is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from growlm.recipe.families import FAMILIES
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig

AXES = ("d_model", "n_heads", "n_kv_heads", "d_ff", "n_layers", "vocab_size", "max_positions")
FIXED = ("family", "tied", "rope_theta", "xpos_scale_base", "rotary_share")
HEAD_DIM = ("masked", "zero")
"""Operators that add rotary pairs; copies of a pair would turn alike and could not part."""

COPIES = ("clone", "lemon", "net2net", "fpi", "aki", "staged", "rms")
"""Operators that make copies with equal incoming weights (`aki` in the last block)."""


@dataclass(frozen=True)
class Refusal:
    """`field` of the grown stage (dotted) that has to change, and to what."""

    field: str
    what: str
    why: str
    fix: str


def refusals(
    old: ModelConfig, new: ModelConfig, growth: GrowthTable, *, has_state: bool = True
) -> list[Refusal]:
    """Everything that keeps `old` from growing into `new` with these settings; empty if it can.

    `has_state`: the weights come with an optimizer state, which can part copies too.
    """
    found = [refusal for rule in RULES for refusal in rule(old, new, growth)]
    return [*found, *_locked(old, new, growth, has_state)]


def _head_dim(old: ModelConfig, new: ModelConfig, growth: GrowthTable) -> Iterator[Refusal]:
    before, after = old.head_dim, new.head_dim
    if after == before:
        return
    what = f"head_dim cannot grow from {before} to {after}"
    keep = f"keep head_dim = {before} and grow n_heads"
    family = FAMILIES.get(old.family)
    normed = family and any(slot.axes == ("head_dim",) for slot in family.slots)
    if normed and growth.operator == "zero":
        why = "the norm of each head would count the new coordinates"
        yield Refusal("head_dim", what, why, f'{keep}, or write operator = "masked"')
    elif old.rotary_share != 1:
        yield Refusal("head_dim", what, "only a part of each head is rotated", keep)
    elif after < before or after % 2 or before % 2:
        yield Refusal("head_dim", what, "coordinates come in rotary pairs and are only added", keep)
    elif growth.operator not in HEAD_DIM:
        why = f"operator {growth.operator} has no rule for new rotary pairs"
        yield Refusal("head_dim", what, why, f'{keep}, or write operator = "masked" or "zero"')


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
        before, after = getattr(old, axis) or 0, getattr(new, axis) or 0
        if after < before:
            what = f"{axis} {after} is smaller than the {before} it grows from"
            yield Refusal(axis, what, "growth only adds units", f"write {before} or more")


def _kv_groups(old: ModelConfig, new: ModelConfig, _: GrowthTable) -> Iterator[Refusal]:
    if new.n_heads % new.n_kv_heads:
        what = f"{new.n_heads} query heads cannot share {new.n_kv_heads} key/value heads"
        fix = f"make n_heads a multiple of {new.n_kv_heads}"
        yield Refusal("n_heads", what, "every key/value head serves as many queries", fix)
        return
    if new.n_kv_heads < old.n_kv_heads:
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
            f'write d_model = {up}, or operator = "masked" or "lemon"',
        )


def _zero_under_layernorm(old: ModelConfig, new: ModelConfig, growth: GrowthTable) -> Iterator[Refusal]:
    family = FAMILIES.get(old.family)
    if growth.operator == "zero" and new.d_model > old.d_model and family and family.norm == "layer":
        yield Refusal(
            "growth.operator",
            f"zero cannot take d_model from {old.d_model} to {new.d_model} under LayerNorm",
            "zero-padding shifts the mean that LayerNorm subtracts, whatever its gain",
            'write operator = "masked" or "lemon" (any size), or "clone" (multiples)',
        )


def _staged_multiples(old: ModelConfig, new: ModelConfig, growth: GrowthTable) -> Iterator[Refusal]:
    if growth.operator != "staged":
        return
    sizes = [(getattr(old, a), getattr(new, a)) for a in ("d_model", "n_heads", "n_kv_heads", "d_ff")]
    factors = {after / before for before, after in sizes if after > before}
    if len(factors) > 1 or any(factor != int(factor) for factor in factors):
        yield Refusal(
            "growth.operator",
            "staged puts whole copies of the model side by side",
            "every width that grows must grow by the same whole factor",
            'write the same multiple everywhere, or operator = "clone"',
        )


def _locked(old: ModelConfig, new: ModelConfig, growth: GrowthTable, has_state: bool) -> Iterator[Refusal]:
    wider = any(getattr(new, a) > getattr(old, a) for a in ("d_model", "n_heads", "d_ff"))
    uneven = growth.operator in ("clone", "lemon") and growth.effective_split != 0.5
    by_state = growth.effective_moments == "asymmetric" and has_state
    parts = growth.effective_noise > 0 or uneven or by_state
    if growth.operator in COPIES and wider and not parts and not growth.force:
        yield Refusal(
            "growth.noise",
            f"{growth.operator} without noise makes copies that can never part ways",
            "equal weights with equal optimizer state get equal gradients for ever: half the model is wasted",
            "write noise = 0.1"
            + (', or moments = "asymmetric"' if has_state else " (there is no optimizer state to part them)")
            + ", or force = true if that is what you want to study",
        )


def _depth(old: ModelConfig, new: ModelConfig, growth: GrowthTable) -> Iterator[Refusal]:
    before, after, depth = old.n_layers, new.n_layers, growth.depth
    if after <= before:
        return
    what = f"{depth} cannot take n_layers from {before} to {after}"
    gated = old.family in FAMILIES and any("gate_proj" in s.name for s in FAMILIES[old.family].slots)
    from_blocks = depth not in ("random", "identity") and (
        depth not in ("masked", "zero_block") or growth.layer_source != "random"
    )
    if before == 0 and from_blocks:
        yield Refusal("growth.depth", what, "there is no block to copy", 'write depth = "random"')
    elif depth == "identity" and gated:
        why = "behind a gain of zero a gated layer has no gradient at all: it would never wake"
        yield Refusal("growth.depth", what, why, 'write depth = "zero_block"')
    elif depth in ("gradual", "midas", "lidas", "solar") and after > 2 * before:
        why = f"{depth} copies a part of the stack once"
        yield Refusal("n_layers", what, why, f'write at most {2 * before}, or depth = "stack"')


def _learned(old: ModelConfig, new: ModelConfig, growth: GrowthTable) -> Iterator[Refusal]:
    if growth.operator == "ligo" and new.n_layers > old.n_layers and growth.depth != "stack":
        yield Refusal(
            "growth.depth",
            f"ligo learns its own mixtures of blocks, not {growth.depth}",
            "they start from the pattern of a stack",
            'write depth = "stack"',
        )


RULES: tuple[Callable[[ModelConfig, ModelConfig, GrowthTable], Iterator[Refusal]], ...] = (
    _head_dim,
    _fixed,
    _never_shrinks,
    _kv_groups,
    _clone_multiples,
    _zero_under_layernorm,
    _staged_multiples,
    _depth,
    _learned,
)
