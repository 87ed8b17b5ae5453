"""Width operators. Each is an axis map for hidden units (heads, ffn), often the same for the residual stream.

The docstring says what an operator does; the decorator says, axis by axis, what it preserves, where it
comes from and what it does about what is NEW. `docs/operators.md` is made from both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from growlm.growth import maps
from growlm.growth.maps import AxisMap
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig

Grade = Literal["exact", "norm", "no"]
"""The same logits; the same root mean square of activations; neither."""

Axis = Callable[[int, int, GrowthTable, np.random.Generator], AxisMap]


@dataclass(frozen=True)
class Width:
    """A width operator.

    `residual` maps d_model, `hidden` everything else. `preserves` grades d_model, heads, head_dim and
    d_ff; an axis that is missing cannot be grown. `pads` is what residual writers write into NEW units of the
    stream (and, if zero, what they read from NEW hidden units). `masked`: NEW units enter behind a ramp.
    `next_layer`: copies of rows come from the block above. `head_reads`: an untied head is split among
    copies like any reader. `logits` is by how much copies of the stream multiply the logits.
    """

    hidden: Axis
    residual: Axis
    preserves: Mapping[str, Grade]
    source: str
    doc: str
    pads: Literal["fresh", "zero", "mean"] = "fresh"
    masked: bool = False
    next_layer: bool = False
    head_reads: bool = False
    logits: Callable[[int, int], float] = lambda _old, _new: 1.0


WIDTH: dict[str, Width] = {}

EVERY_AXIS: dict[str, Grade] = {"d_model": "exact", "heads": "exact", "head_dim": "exact", "d_ff": "exact"}
NO_HEAD_DIM: dict[str, Grade] = {"d_model": "exact", "heads": "exact", "d_ff": "exact"}


def _copies(old: int, new: int) -> float:
    return new / old


def _whole(old: int, new: int) -> float:
    return new // old


def width(
    source: str,
    preserves: Mapping[str, Grade],
    *,
    residual: Axis | None = None,
    pads: Literal["fresh", "zero", "mean"] = "fresh",
    masked: bool = False,
    next_layer: bool = False,
    head_reads: bool = False,
    logits: Callable[[int, int], float] = lambda _old, _new: 1.0,
) -> Callable[[Axis], Axis]:
    """Register a function as the width operator of its name."""

    def register(hidden: Axis) -> Axis:
        name, doc = hidden.__name__, " ".join((hidden.__doc__ or "").split())
        WIDTH[name] = Width(
            hidden,
            residual or hidden,
            dict(preserves),
            source,
            doc,
            pads,
            masked,
            next_layer,
            head_reads,
            logits,
        )
        return hidden

    return register


@width("MSG, 2305.02869", EVERY_AXIS, masked=True)
def masked(old: int, new: int, _table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    """New units of any value, invisible behind a mask that goes 0 -> 1 in `ramp_steps`."""
    return maps.keep(old, new)


@width("Composable expansions, 2308.06103", EVERY_AXIS, pads="zero")
def zero(old: int, new: int, _table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    """New units of any value that write zeros: they add nothing. RMSNorm's gain and epsilon are rescaled."""
    return maps.keep(old, new)


@width("HyperCloning, 2409.12903", NO_HEAD_DIM, logits=_copies)
def clone(old: int, new: int, table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    """Copies whose readers are split evenly; paired `noise` on the readers lets them part."""
    return maps.tile(old, new, table.effective_split)


def _average_expansion(old: int, new: int, table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    return maps.whole_copies(old, new, table.effective_split)


@width("LEMON, 2310.07999", NO_HEAD_DIM, residual=_average_expansion, pads="mean", logits=_whole)
def lemon(old: int, new: int, table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    """Circular copies to any size, readers split unevenly; what is left of d_model holds the mean (LayerNorm)
    or zero (RMSNorm), with the norm's gain and epsilon rescaled."""
    return maps.tile(old, new, table.effective_split)


DRAWN: dict[str, Grade] = {"d_model": "no", "heads": "exact", "d_ff": "exact"}
NOTHING: dict[str, Grade] = {"d_model": "no", "heads": "no", "d_ff": "no"}


@width("Net2Net, 1511.05641", DRAWN, head_reads=True, logits=_copies)
def net2net(old: int, new: int, _table: GrowthTable, rng: np.random.Generator) -> AxisMap:
    """Copies of units drawn at random, readers divided by the number of copies, with `noise`. Norms see
    unequal multiplicities, so d_model is not exact."""
    return maps.resample(old, new, rng)


@width("bert2BERT, 2110.07143", DRAWN, head_reads=True, logits=_copies)
def fpi(old: int, new: int, _table: GrowthTable, rng: np.random.Generator) -> AxisMap:
    """Function-preserving initialisation: net2net without noise, heads copied as units. Exact only where
    no norm is in the way."""
    return maps.resample(old, new, rng)


@width("bert2BERT, 2110.07143", NOTHING, next_layer=True, head_reads=True, logits=_copies)
def aki(old: int, new: int, _table: GrowthTable, rng: np.random.Generator) -> AxisMap:
    """Advanced knowledge initialisation: fpi with the rows of copies taken from the block above, so that
    copies differ; in the last block, which has none above, `noise` parts them. Not exact."""
    return maps.resample(old, new, rng)


@width("Staged training, 2203.06211", NO_HEAD_DIM, logits=_copies)
def staged(old: int, new: int, _table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    """Whole copies side by side, zero between them: block-diagonal matrices."""
    return maps.blocks(old, new)


RMS: dict[str, Grade] = {"d_model": "norm", "heads": "norm", "d_ff": "norm"}


def _norm_preserved(old: int, new: int) -> float:
    return 1.0 / float(maps.norm_preserving(old, new).share[0])


@width("SPARKLING, 2602.02472", RMS, logits=_norm_preserved)
def rms(old: int, new: int, _table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    """Copies whose readers keep the size of activations (exact at a doubling). Optimizer state is zero for
    copies, and `rewarm_steps` with `rewarm_peak` 1.3 warms them up alone."""
    return maps.norm_preserving(old, new)


@width("Warm-starting, 2411.07340", NOTHING)
def shrink_perturb(old: int, new: int, _table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    """`shrink` times the zero-padded old matrices plus `perturb` times a fresh initialisation."""
    return maps.keep(old, new)


@width("LiGO, 2303.00980", NOTHING)
def ligo(old: int, new: int, _table: GrowthTable, _rng: np.random.Generator) -> AxisMap:
    """Old units stay, new units are learned mixtures of old ones, and blocks learned mixtures of blocks:
    `learn_steps` steps of the language loss learn the mixing weights."""
    return maps.keep(old, new)


def axis_maps(old: ModelConfig, new: ModelConfig, table: GrowthTable, seed: int) -> dict[str, AxisMap]:
    """A map for every axis.

    Heads grow by whole kv groups, and by queries inside each group; head_dim by rotary pairs, so that
    each old pair keeps its frequency.
    """
    operator, rng = WIDTH[table.operator], np.random.default_rng(seed)
    d_model = operator.residual(old.d_model, new.d_model, table, rng)
    groups = operator.hidden(old.n_kv_heads, new.n_kv_heads, table, rng)
    per_group = operator.hidden(old.queries_per_kv, new.queries_per_kv, table, rng)
    head = maps.keep(old.head_dim, new.head_dim)
    if new.head_dim > old.head_dim:
        head = maps.halves(maps.keep(old.head_dim // 2, new.head_dim // 2))
    return {
        "vocab": maps.keep(old.vocab_size, new.vocab_size),
        "position": maps.keep(old.max_positions or 1, new.max_positions or 1),
        "head_dim": head,
        "d_model": d_model,
        "q": maps.nested(maps.nested(groups, per_group), head),
        "kv": maps.nested(groups, head),
        "ffn": operator.hidden(old.d_ff, new.d_ff, table, rng),
    }
