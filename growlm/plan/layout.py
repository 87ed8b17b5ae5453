"""How a stage is laid out over ranks: data, tensor and pipeline parallel. Pure arithmetic, no torch.

Ranks are numbered with tensor parallelism fastest, so that its groups lie inside one machine, then the shards
of a replica, then replicas, and pipeline stages slowest:

    rank = ((pp * replicas + replica) * shards + shard) * tp_size + tp
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from growlm.model.parameters import Parameter, parameter_table
from growlm.plan.pieces import Piece, piece_of
from growlm.recipe.shape import ModelConfig

Recompute = Literal["none", "selective", "full"]

CUT_FROM = 2**16
"""Elements from which on the holders of a piece share its writing; below, cuts only lengthen the index."""


@dataclass(frozen=True)
class Place:
    """Where a rank stands in each dimension of the layout."""

    pp: int
    replica: int
    shard: int
    tp: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One stage over `dp * tp * pp` ranks; every choice is made.

    `zero`: 0 whole copies on all of dp, 1 optimizer state sharded (parameters gathered and gradients reduced
    once a step), 2 gradients reduced after every micro-batch, 3 parameters gathered for each use. `replicas`:
    copies within dp, each sharded over dp / replicas ranks (HSDP). `interleave`: model parts per pipeline
    rank. `micro_batch`: sequences in one forward pass. `recompute_every`: of how many blocks one recomputes.
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1
    zero: Literal[0, 1, 2, 3] = 1
    replicas: int = 1
    interleave: int = 1
    sequence_parallel: bool = False
    micro_batch: int = 1
    recompute: Recompute = "none"
    recompute_every: int = 1
    compile: bool = False

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.dp * self.tp * self.pp

    @property
    def copies(self) -> int:
        """Whole copies of the sharded state within dp."""
        return self.dp if self.zero == 0 else self.replicas

    @property
    def shards(self) -> int:
        """Ranks that share one copy."""
        return self.dp // self.copies

    def place(self, rank: int) -> Place:
        """Where a rank stands."""
        rest, tp = divmod(rank, self.tp)
        rest, shard = divmod(rest, self.shards)
        pp, replica = divmod(rest, self.copies)
        return Place(pp, replica, shard, tp)

    def dp_rank(self, place: Place) -> int:
        """The place in data parallelism, 0 .. dp - 1: which micro-batches of a step are this rank's."""
        return place.replica * self.shards + place.shard

    def sequences(self, dp_rank: int, batch_size: int) -> list[int]:
        """Which sequences of a step a rank trains on, micro-batch by micro-batch.

        They are dealt in turn: micro-batch m of rank r is number m * dp + r of the step.
        """
        turns = batch_size // (self.micro_batch * self.dp)
        firsts = [(turn * self.dp + dp_rank) * self.micro_batch for turn in range(turns)]
        return [first + i for first in firsts for i in range(self.micro_batch)]

    def parts(self, config: ModelConfig, pp: int) -> list[range]:
        """The layers of every model part on a pipeline rank, in the order of the forward pass.

        Part k of rank p is part k * pp + p of the whole pipeline.
        """
        cuts = cut_layers(config, self.pp * self.interleave)
        return [cuts[k * self.pp + pp] for k in range(self.interleave)]


@cache
def block_parameters(config: ModelConfig) -> tuple[Parameter, ...]:
    """The parameters of the first block; those of the others are like them."""
    one = config.with_(n_layers=min(1, config.n_layers))
    return tuple(p for p in parameter_table(one).values() if p.layer is not None)


@cache
def outer_parameters(config: ModelConfig, *, first: bool, last: bool) -> tuple[Parameter, ...]:
    """The parameters outside the blocks on the first or last rank of a pipeline."""
    every = parameter_table(config.with_(n_layers=0)).values()
    return tuple(p for p in every if holds(p, config, range(0), first=first, last=last))


@cache
def cut_layers(config: ModelConfig, parts: int) -> list[range]:
    """The layers in `parts` runs whose costliest is as cheap as can be; the head weighs on the last run.

    Cost is in matmul weights, in units of a block. Every run has a layer, as long as there are enough.
    """
    block = sum(p.numel for p in block_parameters(config) if p.role == "hidden")
    head = config.vocab_size * config.d_model / block if block else 0.0
    others, layers = parts - 1, config.n_layers
    if others == 0:
        return [range(layers)]
    lasts = range(min(1, layers), max(1, layers - others) + 1)
    last = min(lasts, key=lambda n: max(-(-(layers - n) // others), n + head))
    edges = [(layers - last) * k // others for k in range(others)] + [layers - last, layers]
    return [range(a, b) for a, b in pairwise(edges)]


def holds(parameter: Parameter, config: ModelConfig, layers: range, *, first: bool, last: bool) -> bool:
    """Whether a model part with these layers has a parameter; a tied embedding is in two of them."""
    if parameter.layer is not None:
        return parameter.layer in layers
    if parameter.name.startswith("embedding."):
        return first or (last and config.tied)
    if parameter.name.startswith("position."):
        return first
    return last


def pieces_of(config: ModelConfig, layout: Layout, rank: int) -> dict[str, Piece]:
    """What a rank holds of every parameter that is on its pipeline stage, in the order of the table."""
    place = layout.place(rank)
    return {
        name: piece_of(p, tp=(place.tp, layout.tp), shard=(place.shard, layout.shards))
        for name, p in parameters_of(config, layout, place.pp).items()
    }


def parameters_of(config: ModelConfig, layout: Layout, pp: int) -> dict[str, Parameter]:
    """The parameters on a pipeline rank, in the order of the table."""
    total = layout.pp * layout.interleave
    runs = [(k * layout.pp + pp, run) for k, run in enumerate(layout.parts(config, pp))]
    return {
        name: p
        for name, p in parameter_table(config).items()
        if any(holds(p, config, run, first=k == 0, last=k == total - 1) for k, run in runs)
    }


def counted(config: ModelConfig, layout: Layout, pp: int) -> list[tuple[Parameter, int]]:
    """What a pipeline rank has, as `parameters_of`: every parameter outside the blocks once, and those of the
    first block as often as there are blocks."""
    layers = sum(map(len, layout.parts(config, pp)))
    outer = outer_parameters(config, first=pp == 0, last=pp == layout.pp - 1)
    return [*((p, layers) for p in block_parameters(config)), *((p, 1) for p in outer)]


def written_by(config: ModelConfig, layout: Layout, rank: int) -> dict[str, Piece]:
    """What a rank writes of the whole: every element is written by one rank.

    A piece that several ranks hold is cut by rows among them; one of less than CUT_FROM elements is written
    by one of them, another for every parameter in turn. Empty pieces are left out.
    """
    written = {}
    places = {name: index for index, name in enumerate(parameter_table(config))}
    for name, piece in pieces_of(config, layout, rank).items():
        holders = _holders(config, layout, name, rank)
        if piece.numel >= CUT_FROM:
            piece = piece.part(0, holders.index(rank), len(holders))
        elif holders[places[name] % len(holders)] != rank:
            continue
        if piece.numel:
            written[name] = piece
    return written


def _holders(config: ModelConfig, layout: Layout, name: str, rank: int) -> list[int]:
    """The ranks that hold the same piece of a parameter as `rank`, in order."""
    place, p = layout.place(rank), parameter_table(config)[name]
    stages = _stages_with(config, layout, name)
    tps = [place.tp] if p.tp_dim is not None else range(layout.tp)
    return [
        ((pp * layout.copies + replica) * layout.shards + place.shard) * layout.tp + tp
        for pp in stages
        for replica in range(layout.copies)
        for tp in tps
    ]


@cache
def _stages_with(config: ModelConfig, layout: Layout, name: str) -> list[int]:
    """The pipeline ranks that hold a parameter: one, or two for a tied embedding."""
    p, total = parameter_table(config)[name], layout.pp * layout.interleave
    return [
        pp
        for pp in range(layout.pp)
        if any(
            holds(p, config, run, first=k * layout.pp + pp == 0, last=k * layout.pp + pp == total - 1)
            for k, run in enumerate(layout.parts(config, pp))
        )
    ]


def is_owner(config: ModelConfig, layout: Layout, name: str, rank: int) -> bool:
    """Whether a rank counts its piece of a parameter in sums over all ranks: one holder of each does."""
    return _holders(config, layout, name, rank)[0] == rank
