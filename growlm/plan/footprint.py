"""Bytes of memory that a rank needs, from the shape of the model and the layout alone. No torch.

Weights, gradients and moments are fp32. Ranks that share a copy gather blocks in the compute dtype, embedding
and head in fp32. Not counted: the allocator's fragments, kernels, and what NCCL keeps for itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from growlm.model.parameters import Parameter
from growlm.plan.activations import Work, block_bytes, in_flight, kept_bytes, recomputed
from growlm.plan.layout import Layout, parameters_of, pieces_of
from growlm.recipe.shape import ModelConfig

CHUNK_LOGITS = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Logits that the loss holds at a time (model/loss.py)."""

Table = Mapping[str, Parameter]


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
    pp = layout.place(rank).pp
    table, pieces = parameters_of(config, layout, pp), pieces_of(config, layout, rank)
    held = sum(piece.numel for piece in pieces.values())
    moments = {name: 1 if work.muon and p.role == "hidden" else 2 for name, p in table.items()}
    return Footprint(
        weights=4 * held,
        working=_working(config, layout, work, pp),
        gradients=_gradients(table, layout, work, held),
        optimizer=sum(4 * moments[name] * piece.numel for name, piece in pieces.items()),
        activations=kept_bytes(config, layout, work, pp),
        workspace=_workspace(config, layout, work, pp),
    )


def most_loaded(config: ModelConfig, layout: Layout, work: Work) -> tuple[int, Footprint]:
    """The rank that needs most, and what: the first of a pipeline stage, since its shards are rounded up."""
    firsts = range(0, layout.world, layout.dp * layout.tp)
    every = [(rank, footprint(config, layout, work, rank)) for rank in firsts]
    return max(every, key=lambda item: item[1].total)


def local_numel(table: Table, tp: int) -> int:
    """Elements of some parameters on one tensor-parallel rank, before data-parallel ranks share them out."""
    return sum(math.prod(p.local_shape(tp)) for p in table.values())


def blocks_of(table: Table) -> Table:
    """The parameters that are in blocks."""
    return {name: p for name, p in table.items() if p.layer is not None}


def rest_of(table: Table) -> Table:
    """The parameters outside the blocks: embedding, positions, final norm, head."""
    return {name: p for name, p in table.items() if p.layer is None}


def _block(table: Table) -> Table:
    """The parameters of one block; those of all are alike."""
    first = next((p.layer for p in table.values() if p.layer is not None), None)
    return {name: p for name, p in table.items() if first is not None and p.layer == first}


def _working(config: ModelConfig, layout: Layout, work: Work, pp: int) -> int:
    """Copies of weights to compute with.

    Over data-parallel ranks what they gather, under ZeRO 3 of a block and of the next one; it is in place for
    all micro-batches. Otherwise every forward pass casts for itself, and the backward pass needs it again.
    """
    table = parameters_of(config, layout, pp)
    blocks = local_numel(blocks_of(table), layout.tp)
    if layout.dp > 1:
        gathered = 2 * local_numel(_block(table), layout.tp) if layout.zero == 3 else blocks
        return work.compute_bytes * gathered + 4 * local_numel(rest_of(table), layout.tp)
    if work.compute_bytes == 4:
        return 0
    runs = layout.parts(config, pp)
    kept = sum(len(run) - recomputed(layout, run) for run in runs) / max(1, sum(map(len, runs)))
    return round(work.compute_bytes * blocks * kept * in_flight(layout, work, pp))


def _gradients(table: Table, layout: Layout, work: Work, held: int) -> int:
    """Whole while micro-batches add up in them, or where they stay whole; else this rank's pieces and the
    unit that is on its way there."""
    adds_up = layout.zero < 2 and work.micro_batches(layout) > 1
    if layout.shards == 1 or adds_up:
        return 4 * local_numel(table, layout.tp)
    unit = max(local_numel(_block(table), layout.tp), local_numel(rest_of(table), layout.tp))
    return 4 * held + (4 + work.compute_bytes) * unit


def _workspace(config: ModelConfig, layout: Layout, work: Work, pp: int) -> int:
    """A block made again and gradients of its widest tensors, or what the loss needs.

    That is logits of one chunk with two copies in fp32 (on a CPU these are small), the head cast to the
    compute dtype, and the gradient of the head from one chunk.
    """
    n, t, c = layout.micro_batch * work.seq_len, layout.tp, work.compute_bytes
    again = block_bytes(config, layout, work, recompute="none") if layout.recompute != "none" else 0
    block = again + 2 * n * c * (config.d_model + config.d_ff // t)
    if pp < layout.pp - 1:
        return block
    chunk = min(CHUNK_LOGITS["cpu" if work.cpu else "cuda"], n * config.vocab_size // t)
    head = config.vocab_size * config.d_model // t
    logits = chunk * (c if work.cpu else c + 8)
    return max(block, logits + head * (c if c == 4 else 2 * c))
