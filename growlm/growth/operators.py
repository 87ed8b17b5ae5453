"""Growth operators. Each is a choice of axis maps, of layer sources, and of what stays zero.

| width  | new units                      | exact because                         | source                  |
|--------|--------------------------------|---------------------------------------|-------------------------|
| masked | any values, behind mask 0 -> 1 | the mask                              | MSG, 2305.02869         |
| zero   | any values, writers zero       | they add nothing; RMSNorm is rescaled | 2308.06103              |
| clone  | copies, readers split          | shares of a unit sum to 1             | HyperCloning 2409.12903 |

| depth      | new blocks                           | exact | source                          |
|------------|--------------------------------------|-------|---------------------------------|
| masked     | copies behind a residual gate 0 -> 1 | yes   | MSG                             |
| zero_block | copies with o_proj = down_proj = 0   | yes   | LLaMA Pro, 2401.02415           |
| stack      | the whole stack again                | no    | 1905.13570; G_stack, 2405.15319 |
| interpose  | each block again, in place           | no    | 2510.08008                      |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from growlm.errors import GrowthError
from growlm.growth.maps import AxisMap, grouped_heads, keep, ranges, tile
from growlm.model.masks import Ramp
from growlm.recipe.growable import refusals
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig


@dataclass(frozen=True)
class LayerSource:
    """Where a block of the grown model comes from.

    `new` blocks did not exist; those that do not keep the moments of their source get a clock of their own.
    """

    source: int
    new: bool = False
    zero_writers: bool = False
    gated: bool = False
    keep_moments: bool = True


@dataclass(frozen=True)
class Growth:
    """Everything that says how a checkpoint of `old` becomes one of `new`."""

    old: ModelConfig
    new: ModelConfig
    table: GrowthTable
    maps: Mapping[str, AxisMap]
    layers: tuple[LayerSource, ...]
    ramp: Ramp
    zero_new_writers: bool
    gain_scale: float
    exact: bool

    @property
    def rounds(self) -> bool:
        """Whether grown weights differ from exact multiples of old ones by rounding."""
        factors = np.concatenate([[self.gain_scale], *(m.share for m in self.maps.values())])
        noisy = self.table.operator == "clone" and self.table.noise > 0
        return noisy or bool((np.frexp(factors)[0] != 0.5).any())


def plan_growth(old: ModelConfig, target: ModelConfig, table: GrowthTable) -> Growth:
    """The growth from `old` to the shape of `target` with the settings of `table`.

    Raises GrowthError, before anything is touched, for a pair that cannot be done or cannot be exact.
    """
    for refusal in refusals(old, target, table):
        raise GrowthError(refusal.what, where=refusal.field, why=refusal.why, fix=refusal.fix)
    width = WIDTH[table.operator]
    maps = width.maps(old, target, table)
    layers = DEPTH[table.depth](old.n_layers, target.n_layers)
    zero_padded = table.operator == "zero" and target.d_model > old.d_model
    copies = target.d_model / old.d_model if table.operator == "clone" else 1.0
    new = target.with_(
        norm_eps=old.norm_eps * (old.d_model / target.d_model if zero_padded else 1.0),
        logit_mult=old.logit_mult / copies,
    )
    behind_mask = {a: ranges(m.is_new) for a, m in maps.items() if a in ("d_model", "q", "ffn")}
    axes = {"vocab": ranges(maps["vocab"].is_new), **(behind_mask if table.operator == "masked" else {})}
    gated = tuple(i for i, layer in enumerate(layers) if layer.gated)
    axes = {axis: new_units for axis, new_units in axes.items() if new_units}
    ramp = Ramp(table.ramp_steps if axes or gated else 0, axes, gated)
    unmasked = ramp.steps <= 1 and (bool(gated) or bool(axes))  # the first step trains at mask 1 already
    copied = any(layer.new and not (layer.gated or layer.zero_writers) for layer in layers)
    return Growth(
        old=old,
        new=new,
        table=table,
        maps=maps,
        layers=layers,
        ramp=ramp,
        zero_new_writers=table.operator == "zero",
        gain_scale=math.sqrt(old.d_model / target.d_model) if zero_padded else 1.0,
        exact=not (unmasked or copied),
    )


# --- width -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Width:
    """A width operator: one map for a plain axis, given (old size, new size, settings)."""

    axis: Callable[[int, int, GrowthTable], AxisMap]

    def maps(self, old: ModelConfig, new: ModelConfig, table: GrowthTable) -> dict[str, AxisMap]:
        """A map for every axis. Heads grow by whole kv groups, and by queries inside each group."""
        groups = self.axis(old.n_kv_heads, new.n_kv_heads, table)
        per_group = self.axis(old.queries_per_kv, new.queries_per_kv, table)
        one = keep(1, 1)
        return {
            "vocab": keep(old.vocab_size, new.vocab_size),
            "d_model": self.axis(old.d_model, new.d_model, table),
            "q": grouped_heads(groups, per_group, old.head_dim),
            "kv": grouped_heads(groups, one, old.head_dim),
            "ffn": self.axis(old.d_ff, new.d_ff, table),
        }


WIDTH: dict[str, Width] = {
    "masked": Width(lambda old, new, _: keep(old, new)),
    "zero": Width(lambda old, new, _: keep(old, new)),
    "clone": Width(lambda old, new, table: tile(old, new, table.split)),
}


# --- depth -----------------------------------------------------------------------------------------


def _interleaved(old: int, new: int, added: Callable[[int], LayerSource]) -> tuple[LayerSource, ...]:
    """Old blocks in order, new ones spread evenly, each right after the block it is made from."""
    sources = [i * old // new for i in range(new)]
    return tuple(LayerSource(s) if i == 0 or sources[i - 1] != s else added(s) for i, s in enumerate(sources))


def _masked(old: int, new: int) -> tuple[LayerSource, ...]:
    return _interleaved(old, new, lambda s: LayerSource(s, new=True, gated=True, keep_moments=False))


def _zero_block(old: int, new: int) -> tuple[LayerSource, ...]:
    return _interleaved(old, new, lambda s: LayerSource(s, new=True, zero_writers=True, keep_moments=False))


def _stack(old: int, new: int) -> tuple[LayerSource, ...]:
    return tuple(LayerSource(i % old, new=i >= old) for i in range(new))


def _interpose(old: int, new: int) -> tuple[LayerSource, ...]:
    return _interleaved(old, new, lambda s: LayerSource(s, new=True))


DEPTH: dict[str, Callable[[int, int], tuple[LayerSource, ...]]] = {
    "masked": _masked,
    "zero_block": _zero_block,
    "stack": _stack,
    "interpose": _interpose,
}
