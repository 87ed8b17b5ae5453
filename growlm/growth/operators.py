"""A growth, planned: axis maps, the source of every block, what hides what is new, and carried constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from torch import Tensor

from growlm.errors import GrowthError
from growlm.growth.depth import LayerSource, plan_layers
from growlm.growth.maps import AxisMap, ranges
from growlm.growth.width import WIDTH, Width, axis_maps
from growlm.model.masks import Ramp
from growlm.model.parameters import Parameter, family_of
from growlm.recipe.growable import refusals
from growlm.recipe.operators import RESETS
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig


@dataclass(frozen=True, eq=False)
class Growth:
    """Everything that says how a checkpoint of `old` becomes one of `new`.

    `gain_scale` multiplies norm gains (zero-padded statistics), `branch_scale` what writes into the residual
    stream of a block (its multiplier falls as blocks are added); `seed` draws what is new; `learned` are the
    grown weights, all of them, where an operator has learned them (`ligo`).
    """

    old: ModelConfig
    new: ModelConfig
    table: GrowthTable
    maps: Mapping[str, AxisMap]
    layers: tuple[LayerSource, ...]
    ramp: Ramp
    gain_scale: float
    branch_scale: float
    exact: bool
    seed: int
    learned: Mapping[str, Tensor] | None = None

    @property
    def width(self) -> Width:
        """The width operator."""
        return WIDTH[self.table.operator]

    @property
    def pads(self) -> str:
        """What residual writers write into NEW units of the stream: `fresh`, `zero`, or `mean`."""
        return "zero" if self.width.pads == "mean" and family_of(self.old).norm == "rms" else self.width.pads

    @property
    def scales(self) -> bool:
        """Whether some weight is multiplied by anything but a power of two, and so rounded."""
        constants = [self.gain_scale, self.branch_scale]
        factors = np.concatenate([constants, *(m.share for m in self.maps.values())])
        return bool((np.frexp(factors)[0] != 0.5).any())

    @property
    def rounds(self) -> bool:
        """Whether grown weights differ from exact multiples of old ones by rounding (noise of fp32 does)."""
        return self.scales or self.table.effective_noise > 0

    def reads(self, parameter: Parameter) -> str | None:
        """The axis along which a parameter is split among copies."""
        head = parameter.role == "unembedding" and self.width.head_reads
        return "d_model" if head else parameter.reads

    def row_scale(self, parameter: Parameter) -> float:
        """The constant that every old weight of a parameter is multiplied by, beside its shares."""
        if parameter.role == "gain" and parameter.axes == ("d_model",):
            return self.gain_scale
        return self.branch_scale if parameter.writes_residual and parameter.layer is not None else 1.0

    def gradient_scale(self, parameter: Parameter) -> float:
        """The constant that the gradient of every old weight is multiplied by, beside its shares.

        In a block gradients are in proportion to the residual multiplier, and what it lost silent blocks
        leave to `branch_scale` to make up for; to what `row_scale` multiplies they are inverse.
        """
        if parameter.layer is None:
            return 1.0 / self.row_scale(parameter)
        ratio = self.new.residual_mult / self.old.residual_mult
        return ratio * self.branch_scale / self.row_scale(parameter)

    def source_name(self, parameter: Parameter) -> str:
        """The old parameter that a new one comes from; not for those of a fresh block."""
        return (
            parameter.name
            if parameter.layer is None
            else parameter.at_layer(self.layers[parameter.layer].source)
        )

    def to_dict(self) -> dict[str, Any]:
        """What the history of a model says of it, in plain JSON types."""
        return {
            "from": self.old.to_dict(),
            "to": self.new.to_dict(),
            "operator": self.table.operator,
            "depth": self.table.depth,
            "ramp": self.ramp.to_dict(),
        }

    def plan(self) -> dict[str, Any]:
        """Everything that decides the grown bytes, beside the old ones, in plain JSON types."""
        layers = [[layer.source, layer.start] for layer in self.layers]
        learned = xxhash.xxh3_64()
        for tensor in (self.learned or {}).values():
            learned.update(tensor.numpy().tobytes())
        return self.to_dict() | {
            "settings": self.table.model_dump(),
            "seed": self.seed,
            "layers": layers,
            "learned": learned.hexdigest(),
        }


def plan_growth(
    old: ModelConfig,
    target: ModelConfig,
    table: GrowthTable,
    *,
    seed: int = 0,
    distances: Sequence[float] | None = None,
    has_state: bool = True,
) -> Growth:
    """The growth from `old` to the shape of `target` with the settings of `table`.

    `distances`, one for each old block, are what depth `distance` chooses by (see `layer_distances`).
    `has_state`: an optimizer state grows too. Without one, asymmetric moments cannot part copies.
    Raises GrowthError, before anything is touched, for a pair that cannot be done or cannot be exact.
    """
    target = target.with_(max_positions=target.max_positions or old.max_positions)  # unset: as they are
    for refusal in refusals(old, target, table, has_state=has_state):
        raise GrowthError(refusal.what, where=refusal.field, why=refusal.why, fix=refusal.fix)
    maps = axis_maps(old, target, table, seed)
    layers = plan_layers(old, target, table, distances)
    ramp = _ramp(old, target, table, maps, layers)
    gain_scale, norm_eps = _norm_constants(old, target, table)
    logits = WIDTH[table.operator].logits(old.d_model, target.d_model)
    untied_head = WIDTH[table.operator].head_reads and not old.tied
    new = target.with_(
        norm_eps=norm_eps,
        head_norm_eps=old.head_norm_eps or (None if norm_eps == old.norm_eps else old.norm_eps),
        input_mult=old.input_mult,
        logit_mult=old.logit_mult / (1.0 if untied_head else logits),
        attn_mult=old.attn_mult * math.sqrt(target.head_dim / old.head_dim),  # undoes 1/sqrt(head_dim)
        rotary=_rotary(old, target),
        rope_scaling=old.rope_scaling,
        mup_base_d_model=old.mup_base_d_model,
        mup_base_hidden=old.mup_base_hidden,
        mup_base_n_layers=old.mup_base_n_layers,
    )
    opens_at_once = ramp.steps <= 1 and bool(ramp.axes or ramp.layers)  # the first step trains at mask 1
    exact = not opens_at_once and _width_is_exact(old, target, table) and all(x.exact for x in layers)
    branch_scale = _branch_scale(old, new, layers)
    return Growth(old, new, table, maps, layers, ramp, gain_scale, branch_scale, exact, seed)


def _branch_scale(old: ModelConfig, new: ModelConfig, layers: Sequence[LayerSource]) -> float:
    """Factor on residual writers that makes up for the smaller residual multiplier of more blocks.

    1 where blocks are doubled: a block and its copy, each with half the multiplier, add what the block did.
    """
    if any(layer.start == "copy" for layer in layers):
        return 1.0
    return old.residual_mult / new.residual_mult


def _width_is_exact(old: ModelConfig, new: ModelConfig, table: GrowthTable) -> bool:
    """Whether every axis that grows is graded exact; a doubling by `rms` is, for its factor is 1/2."""
    grades = WIDTH[table.operator].preserves
    groups, queries = (old.n_kv_heads, new.n_kv_heads), (old.queries_per_kv, new.queries_per_kv)
    sizes = [("d_model", (old.d_model, new.d_model)), ("d_ff", (old.d_ff, new.d_ff))]
    sizes += [("heads", groups), ("heads", queries), ("head_dim", (old.head_dim, new.head_dim))]
    if table.operator in RESETS:
        return False
    if table.operator == "rms":
        return all(b in (a, 2 * a) for _, (a, b) in sizes)
    return all(a == b or grades[axis] == "exact" for axis, (a, b) in sizes)


def _ramp(
    old: ModelConfig,
    new: ModelConfig,
    table: GrowthTable,
    maps: Mapping[str, AxisMap],
    layers: tuple[LayerSource, ...],
) -> Ramp:
    """What enters behind a mask: new tokens always, new units of a masked growth, gated blocks."""
    axes = {"vocab": ranges(maps["vocab"].is_new)}
    if WIDTH[table.operator].masked:
        axes |= {axis: ranges(maps[axis].is_new) for axis in ("d_model", "q", "ffn")}
        if new.head_dim > old.head_dim:
            axes["score"] = axes["q"]
    axes = {axis: units for axis, units in axes.items() if units}
    gated = tuple(i for i, layer in enumerate(layers) if layer.start == "gate")
    return Ramp(table.ramp_steps if axes or gated else 0, axes, gated)


def _norm_constants(old: ModelConfig, new: ModelConfig, table: GrowthTable) -> tuple[float, float]:
    """Factor on the gains, and epsilon, where statistics count units that are zero or the mean (LEMON).

    Of d' units k d hold copies, so the mean square is k d / d' of what it was.
    """
    if WIDTH[table.operator].pads == "fresh":
        return 1.0, old.norm_eps
    copies = new.d_model // old.d_model if table.operator == "lemon" else 1
    part = copies * old.d_model / new.d_model
    return math.sqrt(part), old.norm_eps * part


def _rotary(old: ModelConfig, new: ModelConfig) -> tuple[float, ...] | None:
    """Exponents of the rotary pairs: old pairs keep theirs, new ones lie evenly between 0 and 1.

    For a doubled head_dim these are all frequencies of a model of that head_dim, in another order.
    """
    if old.head_dim == new.head_dim or family_of(old).position == "learned":
        return old.rotary
    added = (new.head_dim - old.head_dim) // 2
    return old.rotary_exponents + tuple((2 * j + 1) / (2 * added) for j in range(added))
