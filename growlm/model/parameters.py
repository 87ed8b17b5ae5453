"""The parameter table: one record per parameter. Everything that must agree about a tensor reads it.

Initialisation, optimizer groups, growth, checkpoints, FLOP and parameter counts all start from
`parameter_table(config)`. It is computed without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

from growlm.errors import RecipeError
from growlm.recipe.families import FAMILIES, Family, Role, Slot
from growlm.recipe.shape import ModelConfig

SPLIT_AXES = ("vocab", "q", "kv", "ffn")
"""The axes that tensor parallelism divides among its ranks; each has one in every parameter that has any."""


@dataclass(frozen=True)
class Parameter:
    """One tensor of the model.

    `axes` name its dimensions, `shape` their sizes; `reads` is the axis it contracts over (None for
    lookups and vectors); `writes_residual`: its output is added to the residual stream; `key`: it makes the
    keys of attention; `layer` is None outside the blocks. The multipliers are relative to the recipe's
    learning rate, weight decay and AdamW epsilon. `muon`: spectral norm of an update of Muon at learning
    rate 1, of a hidden matrix; 0 for all others.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    role: Role
    reads: str | None
    writes_residual: bool
    key: bool
    layer: int | None
    init: Literal["normal", "ones", "zeros"]
    std: float
    lr_mult: float
    wd_mult: float
    eps_mult: float
    muon: float

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def tp_dim(self) -> int | None:
        """The dimension that tensor parallelism splits; None if every rank holds it all."""
        return next((dim for dim, axis in enumerate(self.axes) if axis in SPLIT_AXES), None)

    def local_shape(self, tp: int) -> tuple[int, ...]:
        """Its shape on one of `tp` ranks, which divide the axis that is split."""
        return tuple(n // tp if dim == self.tp_dim else n for dim, n in enumerate(self.shape))

    def at_layer(self, layer: int) -> str:
        """The name of the same parameter in another layer."""
        return self.name if self.layer is None else self.name.replace(f".{self.layer}.", f".{layer}.", 1)


def family_of(config: ModelConfig) -> Family:
    """The family of a config; RecipeError if there is none of that name."""
    if config.family not in FAMILIES:
        raise RecipeError(
            f"unknown model family {config.family!r}",
            where="model.family",
            fix="write one of: " + ", ".join(sorted(FAMILIES)),
        )
    return FAMILIES[config.family]


def axis_sizes(config: ModelConfig) -> dict[str, int]:
    """Size of every named axis; `position` has none in a model without learned positions."""
    return {
        "vocab": config.vocab_size,
        "d_model": config.d_model,
        "q": config.n_heads * config.head_dim,
        "kv": config.n_kv_heads * config.head_dim,
        "ffn": config.d_ff,
        "head_dim": config.head_dim,
        "position": config.max_positions or 0,
    }


def base_ratios(config: ModelConfig) -> dict[str, float]:
    """Size of every hidden axis over its base size; empty without a base width. Heads share their gains, so
    head_dim is none of them."""
    if config.mup_base_d_model is None:
        return {}
    width = config.d_model / config.mup_base_d_model
    sizes, hidden = axis_sizes(config), ("q", "kv", "ffn")
    bases = config.mup_base_hidden or [sizes[axis] / width for axis in hidden]
    return {"d_model": width} | {a: sizes[a] / base for a, base in zip(hidden, bases, strict=True)}


@cache
def parameter_table(config: ModelConfig) -> dict[str, Parameter]:
    """Every parameter of the model by name, in the order of the forward pass."""
    slots = family_of(config).slots
    first = next(k for k, slot in enumerate(slots) if "{i}" in slot.name)
    block = [slot for slot in slots if "{i}" in slot.name]
    order: list[tuple[Slot, int | None]] = [(slot, None) for slot in slots[:first]]
    order += [(slot, layer) for layer in range(config.n_layers) for slot in block]
    order += [(slot, None) for slot in slots[first + len(block) :]]
    records = [
        _record(slot, layer, config)
        for slot, layer in order
        if not (config.tied and slot.role == "unembedding")
    ]
    return {p.name: p for p in records}


def n_parameters(config: ModelConfig) -> int:
    """Number of trained parameters, a tied embedding counted once."""
    return sum(p.numel for p in parameter_table(config).values())


def _record(slot: Slot, layer: int | None, config: ModelConfig) -> Parameter:
    """Sizes, initialisation and multipliers of one slot.

    muP with AdamW (2203.03466, table 8): a hidden matrix that reads an axis of m times its base size has
    std/sqrt(m), lr/m, weight decay*m. Gradients are in proportion to 1/m of the axis that is written, and in
    a block to the residual multiplier, and AdamW's epsilon with them (2407.05872; CompleteP, 2505.01618,
    table 1). Without a base every m is 1. Residual writers start smaller by 1/sqrt(2 layers) (GPT-2), of the
    base under CompleteP, where the multiplier does the rest.
    """
    growth = base_ratios(config)
    m = growth.get(slot.reads or "", 1.0)
    matrix = slot.role in ("hidden", "embedding", "unembedding")
    hidden = slot.role == "hidden"
    std = config.init_std if matrix else 0.0
    if hidden:
        std /= math.sqrt(m)
        if slot.writes_residual:
            std /= math.sqrt(2 * max(1, config.mup_base_n_layers or config.n_layers))
    written = slot.axes[-1] if slot.role in ("embedding", "unembedding") else slot.axes[0]
    sizes = axis_sizes(config)
    return Parameter(
        name=slot.name.format(i=layer),
        axes=slot.axes,
        shape=tuple(sizes[a] for a in slot.axes),
        role=slot.role,
        reads=slot.reads,
        writes_residual=slot.writes_residual,
        key=slot.key,
        layer=layer,
        init="normal" if matrix else "ones" if slot.role == "gain" else "zeros",
        std=std,
        lr_mult=1 / m if hidden else 1.0,
        wd_mult=(m if hidden else 1.0) if matrix else 0.0,
        eps_mult=(1.0 if layer is None else config.residual_mult) / growth.get(written, 1.0),
        muon=_muon_norm((sizes[slot.axes[0]], sizes[slot.axes[1]]), growth.get(written, 1.0), m)
        if hidden
        else 0,
    )


def _muon_norm(shape: tuple[int, int], written: float, read: float) -> float:
    """Spectral norm of Muon's update of a matrix (out, in), whose axes are `written` and `read` times their
    base sizes.

    At the base 0.2 sqrt(max(out, in)): a root mean square of about 0.2, as AdamW's is, so that one learning
    rate serves both (2502.16982, equation 4). From there in proportion to sqrt(out / in), which keeps the
    change of activations the same at every width (spectral condition, 2310.17813).
    """
    return 0.2 * math.sqrt(max(shape[0] / written, shape[1] / read) * written / read)
