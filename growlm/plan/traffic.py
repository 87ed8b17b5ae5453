"""Bytes that a rank sends in one optimizer step, and how well a pipeline is filled. No torch.

By ring algorithms (Patarasuk and Yuan 2009): of a tensor of b bytes over n ranks each sends b (n - 1) / n to
gather it, or to reduce and scatter it, and twice that to reduce it everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from growlm.plan.activations import Work, recomputed, stream_bytes
from growlm.plan.flops import block_flops, head_flops
from growlm.plan.footprint import local_numel
from growlm.plan.layout import Layout, counted
from growlm.recipe.shape import ModelConfig


@dataclass(frozen=True)
class Traffic:
    """Bytes sent by one rank in one step: among data-, tensor- and pipeline-parallel ranks."""

    dp: int
    tp: int
    pp: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.dp + self.tp + self.pp


def traffic(config: ModelConfig, layout: Layout, work: Work, pp: int) -> Traffic:
    """What a rank of a pipeline stage sends."""
    return Traffic(
        dp=round(_data_parallel(config, layout, work, pp)),
        tp=round(_tensor_parallel(config, layout, work, pp)),
        pp=round(_pipeline(config, layout, work, pp)),
    )


def bubble(layout: Layout, work: Work) -> float:
    """Share of a step in which a pipeline rank waits for others (Narayanan et al. 2104.04473, 2.2)."""
    wait = layout.pp - 1
    return wait / (layout.interleave * work.micro_batches(layout) + wait)


def balance(config: ModelConfig, layout: Layout, seq_len: int) -> list[float]:
    """Model FLOPs of every pipeline rank over their mean: the largest is how much longer a step takes."""
    layers = [sum(map(len, layout.parts(config, pp))) for pp in range(layout.pp)]
    cost = [count * block_flops(config, seq_len) for count in layers]
    cost[-1] += head_flops(config)
    return [c * layout.pp / sum(cost) for c in cost]


def _ring(ranks: int) -> float:
    return (ranks - 1) / ranks


def _data_parallel(config: ModelConfig, layout: Layout, work: Work, pp: int) -> float:
    """Weights gathered once a step, under ZeRO 3 for both passes of every micro-batch; gradients reduced
    once a step, from ZeRO 2 on for every micro-batch. Muon gathers its matrices once more."""
    blocks, rest = local_numel(config, layout, pp)
    gathers = work.micro_batches(layout) if layout.zero == 3 else 1
    sums = work.micro_batches(layout) if layout.zero >= 2 else 1
    gathered = gathers * ((1 + (layout.zero == 3)) * work.compute_bytes * blocks + 4 * rest)
    reduced = sums * 4 * (blocks + rest)
    copies = 2 * _ring(layout.copies) * reduced / layout.shards
    muon = 0.0
    if work.muon:
        matrices = sum(n * p.numel for p, n in counted(config, layout, pp) if p.role == "hidden")
        muon = 4 * matrices * _ring(layout.shards * layout.tp)
    return _ring(layout.shards) * (gathered + reduced) + copies + muon


def _tensor_parallel(config: ModelConfig, layout: Layout, work: Work, pp: int) -> float:
    """Two enters and two leaves in each block and pass, as much with sequence parallelism as without; one
    more for the embedding and one for the head. Then gradients of what is not split, and of the loss."""
    if layout.tp == 1:
        return 0.0
    tokens = layout.micro_batch * work.seq_len
    stream = tokens * config.d_model * work.compute_bytes
    first, last = pp == 0, pp == layout.pp - 1
    again = 3 if layout.sequence_parallel else 2  # of a block made again, all but the last sum
    runs = layout.parts(config, pp)
    times = sum(8 * len(run) + again * recomputed(layout, run) for run in runs) + 2 * first + 2 * last
    each = times * stream + (6 * 4 * tokens if last else 0)
    shared = [(p, n) for p, n in counted(config, layout, pp) if p.tp_dim is None]
    if not layout.sequence_parallel:  # then only gains that heads share see different gradients
        shared = [(p, n) for p, n in shared if p.axes == ("head_dim",)]
    gradients = 2 * 4 * sum(n * p.numel for p, n in shared) / layout.shards
    return _ring(layout.tp) * (work.micro_batches(layout) * each + gradients)


def _pipeline(config: ModelConfig, layout: Layout, work: Work, pp: int) -> float:
    """The stream behind every part and its gradient before it, for every micro-batch; a tied embedding's
    gradient between the ends."""
    if layout.pp == 1:
        return 0.0
    first, last = pp == 0, pp == layout.pp - 1
    streams = 2 * layout.interleave - first - last
    sent = float(work.micro_batches(layout) * streams * stream_bytes(config, layout, work))
    if config.tied and (first or last):
        sent += 4 * config.vocab_size * config.d_model / (layout.tp * layout.shards)
    return sent
