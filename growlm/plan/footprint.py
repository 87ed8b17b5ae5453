"""Bytes of memory that a rank needs, from the shape of the model and the layout alone. No torch.

Weights, gradients and moments are fp32. Ranks that share a copy gather blocks in the compute dtype, embedding
and head in fp32. Not counted: the allocator's fragments, kernels, and what NCCL keeps for itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache

from growlm.model.parameters import Parameter
from growlm.plan.activations import Work, block_bytes, in_flight, kept_bytes, recomputed
from growlm.plan.layout import Layout, block_parameters, outer_parameters
from growlm.plan.pieces import piece_of
from growlm.recipe.shape import ModelConfig

CHUNK_LOGITS = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Logits that the loss holds at a time (model/loss.py)."""


@dataclass(frozen=True)
class Footprint:
    """Bytes on one rank at the fullest moment of a step.

    `weights`: its pieces in fp32. `working`: what is gathered or cast of them to compute with. `gradients`
    and `optimizer`: what is kept of either. `activations`: kept for the backward pass, of all micro-batches
    in flight. `workspace`: the largest thing needed for a moment, logits or a block that is made again.
    """

    weights: int
    working: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))


def footprint(config: ModelConfig, layout: Layout, work: Work, rank: int) -> Footprint:
    """The memory of one rank."""
    place = layout.place(rank)
    pp, tp, shard = place.pp, (place.tp, layout.tp), (place.shard, layout.shards)
    layers = sum(map(len, layout.parts(config, pp)))
    in_block, outside = _held(config, None, tp, shard), _held(config, _ends(layout, pp), tp, shard)
    matrices, others = (layers * block + rest for block, rest in zip(in_block, outside, strict=True))
    activations = kept_bytes(config, layout, work, pp)
    return Footprint(
        weights=4 * (matrices + others),
        working=_working(config, layout, work, pp),
        gradients=_gradients(config, layout, work, pp, matrices + others, activations),
        optimizer=(4 if work.muon else 8) * matrices + 8 * others,
        activations=activations,
        workspace=_workspace(config, layout, work, pp),
    )


def most_loaded(config: ModelConfig, layout: Layout, work: Work) -> tuple[int, Footprint]:
    """The rank that needs most, and what: the first of a pipeline stage, since its shards are rounded up."""
    firsts = range(0, layout.world, layout.dp * layout.tp)
    every = [(rank, footprint(config, layout, work, rank)) for rank in firsts]
    return max(every, key=lambda item: item[1].total)


def local_numel(config: ModelConfig, layout: Layout, pp: int) -> tuple[int, int]:
    """Elements on a tensor-parallel rank, before data-parallel ranks share them out: in blocks, and outside:
    embedding, positions, final norm, head."""
    layers = sum(map(len, layout.parts(config, pp)))
    return layers * _local(config, None, layout.tp), _local(config, _ends(layout, pp), layout.tp)


Ends = tuple[bool, bool]
"""Whether a rank is the first, and the last, of its pipeline: what it holds outside the blocks."""


def _ends(layout: Layout, pp: int) -> Ends:
    return pp == 0, pp == layout.pp - 1


def _parameters(config: ModelConfig, ends: Ends | None) -> tuple[Parameter, ...]:
    """Those of one block, or of a rank outside its blocks."""
    return block_parameters(config) if ends is None else outer_parameters(config, first=ends[0], last=ends[1])


@cache
def _local(config: ModelConfig, ends: Ends | None, tp: int) -> int:
    """Elements on a tensor-parallel rank."""
    return sum(math.prod(p.local_shape(tp)) for p in _parameters(config, ends))


@cache
def _held(
    config: ModelConfig, ends: Ends | None, tp: tuple[int, int], shard: tuple[int, int]
) -> tuple[int, int]:
    """Elements at (rank, size) of tensor parallelism and sharding: of blocks' matrices, and of others."""
    found = [(p.role, piece_of(p, tp=tp, shard=shard).numel) for p in _parameters(config, ends)]
    matrices = sum(n for role, n in found if role == "hidden")
    return matrices, sum(n for _, n in found) - matrices


def _working(config: ModelConfig, layout: Layout, work: Work, pp: int) -> int:
    """Copies of weights to compute with.

    Over data-parallel ranks what they gather, under ZeRO 3 of a block and of the next one; it is in place for
    all micro-batches. Otherwise every forward pass casts for itself, and the backward pass needs it again.
    """
    blocks, rest = local_numel(config, layout, pp)
    if layout.dp > 1:
        gathered = 2 * _local(config, None, layout.tp) if layout.zero == 3 else blocks
        return work.compute_bytes * gathered + 4 * rest
    if work.compute_bytes == 4:
        return 0
    runs = layout.parts(config, pp)
    kept = sum(len(run) - recomputed(layout, run) for run in runs) / max(1, sum(map(len, runs)))
    return round(work.compute_bytes * blocks * kept * in_flight(layout, work, pp))


def _gradients(config: ModelConfig, layout: Layout, work: Work, pp: int, held: int, activations: int) -> int:
    """Whole while micro-batches add up in them, or where they stay whole; else this rank's pieces and the
    unit that is on its way there. Those of a single micro-batch come as its activations go: counted is what
    they are more than these, and at least what is there first, outside the blocks."""
    blocks, rest = local_numel(config, layout, pp)
    single = work.micro_batches(layout) == 1
    if layout.shards == 1 or (layout.zero < 2 and not single):
        whole = 4 * (blocks + rest)
    else:
        unit = max(_local(config, None, layout.tp), rest)
        whole = 4 * held + (4 + work.compute_bytes) * unit
    return max(4 * rest, whole - activations) if single and layout.pp == 1 else whole


def _workspace(config: ModelConfig, layout: Layout, work: Work, pp: int) -> int:
    """A block made again and gradients of its widest tensors, or what the loss needs.

    That is logits of one chunk with two copies in fp32 (on a CPU these are small), the head cast to the
    compute dtype, and the gradient of the head from one chunk.
    """
    n, t, c = layout.micro_batch * work.seq_len, layout.tp, work.compute_bytes
    whole, kept = (block_bytes(config, layout, work, recompute=r) for r in ("none", layout.recompute))
    gradients = 2 if layout.recompute == "none" else 1
    block = whole - kept + gradients * n * c * (config.d_model + config.d_ff // t)
    if pp < layout.pp - 1:
        return block
    chunk = min(CHUNK_LOGITS["cpu" if work.cpu else "cuda"], n * config.vocab_size // t)
    head = config.vocab_size * config.d_model // t
    logits = chunk * (c if work.cpu else c + 8)
    return max(block, logits + head * (c if c == 4 else 2 * c))
