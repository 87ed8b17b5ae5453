"""Depth operators: for every block of the grown model, which old block it comes from and how it starts.

The docstring says what an operator does and cites it; `docs/operators.md` is made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from growlm.errors import GrowthError
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig

FRESH = -1

Start = Literal["kept", "copy", "zero", "gate", "identity", "fresh"]


@dataclass(frozen=True)
class LayerSource:
    """Where a block of the grown model comes from: an old block, or FRESH values from the table.

    `start`: an old block is `kept`; a new one is a plain `copy`, has `zero` residual writers, is behind a
    `gate` that the ramp opens, is an `identity` (gains zero, square parts identities), or is `fresh`.
    """

    source: int
    start: Start = "kept"

    @property
    def new(self) -> bool:
        """Whether the block did not exist before."""
        return self.start != "kept"

    @property
    def keep_moments(self) -> bool:
        """Whether it brings the moments and the clock of its source; else both start anew."""
        return self.start in ("kept", "copy")

    @property
    def exact(self) -> bool:
        """Whether it leaves the function as it was."""
        return self.start in ("kept", "zero", "gate", "identity")


Layers = Callable[[int, int, GrowthTable, Sequence[float]], list[LayerSource]]


@dataclass(frozen=True)
class Depth:
    """A depth operator: `layers(old, new, table, distances)`; whether it is exact, and its source."""

    layers: Layers
    exact: bool
    source: str
    doc: str


DEPTH: dict[str, Depth] = {}


def depth(source: str, *, exact: bool = False) -> Callable[[Layers], Layers]:
    """Register a function as the depth operator of its name."""

    def register(layers: Layers) -> Layers:
        doc = " ".join((layers.__doc__ or "").split())
        DEPTH[layers.__name__] = Depth(layers, exact, source, doc)
        return layers

    return register


def plan_layers(
    old: ModelConfig, new: ModelConfig, table: GrowthTable, distances: Sequence[float] | None
) -> tuple[LayerSource, ...]:
    """Every block of the grown model; `distances` (see `layer_distances`) are for `distance` alone."""
    if new.n_layers == old.n_layers:
        return tuple(LayerSource(i) for i in range(old.n_layers))
    if table.depth == "distance" and not distances:
        raise GrowthError("depth distance needs the distance of every block", fix="see `layer_distances`")
    layers = DEPTH[table.depth].layers(old.n_layers, new.n_layers, table, distances or [])
    assert [x.source for x in layers if not x.new] == list(range(old.n_layers))
    assert len(layers) == new.n_layers
    return tuple(layers)


def _interleaved(old: int, new: int, start: Start, source: str = "interpolate") -> list[LayerSource]:
    """Old blocks in order and new ones by `source`: spread evenly after their originals, on top, or fresh."""
    if source == "stack":
        return _kept(old) + [LayerSource(i % old, start) for i in range(old, new)]
    if old == 0:
        return [LayerSource(FRESH, start)] * new
    place = [i * old // new for i in range(new)]
    value = (lambda _: FRESH) if source == "random" else (lambda s: s)
    return [
        LayerSource(s) if i == 0 or place[i - 1] != s else LayerSource(value(s), start)
        for i, s in enumerate(place)
    ]


def _kept(stop: int, start: int = 0) -> list[LayerSource]:
    return [LayerSource(i) for i in range(start, stop)]


def _copies(first: int, stop: int) -> list[LayerSource]:
    return [LayerSource(i, "copy") for i in range(first, stop)]


@depth("LLaMA Pro, 2401.02415; LEMON, 2310.07999", exact=True)
def zero_block(old: int, new: int, table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """New blocks with o_proj = down_proj = 0, by default copies, each after its original."""
    return _interleaved(old, new, "zero", table.layer_source)


@depth("MSG, 2305.02869", exact=True)
def masked(old: int, new: int, table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """New blocks behind a gate that goes 0 -> 1, by default copies, each after its original."""
    return _interleaved(old, new, "gate", table.layer_source)


@depth("Staged training, 2203.06211", exact=True)
def identity(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """New blocks of identity matrices and zero gains and biases; they wake by the gains (not if gated)."""
    return _interleaved(old, new, "identity", "random")


@depth("StackBERT, Gong et al. 2019; G_stack, 2405.15319")
def stack(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """The whole stack again, on top."""
    return _interleaved(old, new, "copy", "stack")


@depth("gradual stacking, 2409.19044; MSLT, 2011.13635")
def gradual(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """The last blocks again, on top."""
    return _kept(old) + _copies(2 * old - new, old)


@depth("Orthogonal growth, 2510.08008")
def interpose(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """Copies, each right after its original, spread evenly."""
    return _interleaved(old, new, "copy")


@depth("MIDAS, 2409.19044")
def midas(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """The middle group of blocks, as many as are added, again right after itself."""
    b = new - old
    first = (old // b - 1) // 2 * b if old % b == 0 else (old - b) // 2
    return _kept(first + b) + _copies(first, first + b) + _kept(old, first + b)


@depth("LIDAS, 2512.08819")
def lidas(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """At the exact middle, the last blocks before it and the first after it again."""
    b, middle = new - old, old // 2
    first = middle - b // 2
    return _kept(middle) + _copies(first, first + b) + _kept(old, middle)


@depth("SOLAR, 2312.15166")
def solar(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """The stack without its last m blocks, then the stack without its first m."""
    cut = (
        2 * old - new
    ) // 2  # the first copy ends here from the top, the second begins here from the bottom
    begin = 2 * old - new - cut
    first, second = list(range(old - cut)), list(range(begin, old))
    return [LayerSource(i) for i in first] + [
        LayerSource(i, "copy" if i < old - cut else "kept") for i in second
    ]


@depth("Tele-FLM-1T, 2407.02783")
def distance(old: int, new: int, _table: GrowthTable, distances: Sequence[float]) -> list[LayerSource]:
    """Copies of the blocks that change the stream least, each right after its original."""
    rounds, rest = divmod(new - old, old)
    nearest = set(sorted(range(old), key=lambda i: distances[i])[:rest])
    layers: list[LayerSource] = []
    for i in range(old):
        layers += [LayerSource(i), *[LayerSource(i, "copy")] * (rounds + (i in nearest))]
    return layers


@depth("zero/one-layer training, 2511.04981")
def random(old: int, new: int, _table: GrowthTable, _: Sequence[float]) -> list[LayerSource]:
    """Freshly initialised blocks on top; also for a model of no blocks."""
    return _kept(old) + [LayerSource(FRESH, "fresh")] * (new - old)
