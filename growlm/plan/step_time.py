"""How long an optimizer step takes, from the shape, the layout and the device. No torch.

    micro-batch  t = (model FLOPs + recomputed FLOPs of the slowest pipeline rank) / tp / (peak x efficiency)
                   + tensor- and pipeline-parallel bytes / bandwidth                 (none of it overlaps)
    step           = (m + (pp - 1) / interleave) t + what is left of the data-parallel bytes' time

of m micro-batches (Narayanan et al., 2104.04473, section 2.2). Data-parallel traffic overlaps with the
computing of one micro-batch, under ZeRO 2 and 3 with that of all, since it comes with every one.
Attention counts over the whole square, as in `flops.py`: causal kernels do half of it, half as efficiently.
"""

from __future__ import annotations

from dataclasses import dataclass

from growlm.plan.activations import Work, recomputed
from growlm.plan.flops import block_flops, flops_per_token, head_flops
from growlm.plan.layout import Layout
from growlm.plan.machines import Gpu
from growlm.plan.traffic import traffic
from growlm.recipe.shape import ModelConfig


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step and where they go: they add up. `mfu`: of all ranks, without recomputed FLOPs.

    `communication` is what does not hide behind computing; `bubble` what pipeline ranks wait for each other,
    also where their shares differ.
    """

    seconds: float
    compute: float
    recompute: float
    communication: float
    bubble: float
    mfu: float


def step_time(
    config: ModelConfig, layout: Layout, work: Work, gpu: Gpu, *, mfu: float | None = None
) -> StepTime:
    """The time of a step; a given `mfu` fixes its seconds, and the parts keep their shares of them."""
    m, tokens = work.micro_batches(layout), work.batch_size * work.seq_len
    speed = gpu.peak_flops * gpu.efficiency
    model = flops_per_token(config, work.seq_len) * tokens
    compute = model / layout.world / speed
    each, again = _slowest(config, layout, work)
    sent = traffic(config, layout, work, layout.pp - 1)
    between = sent.tp / _bandwidth(gpu, 1, layout.tp) + sent.pp / _bandwidth(
        gpu, layout.dp * layout.tp, layout.pp
    )
    busy = m * each / speed + m * again / speed + between
    pipeline = busy * (1 + (layout.pp - 1) / (layout.interleave * m))
    hidden = m * each / speed / (1 if layout.zero >= 2 else m)
    data = max(0.0, sent.dp / _bandwidth(gpu, layout.tp, layout.dp) - hidden)
    seconds = pipeline + data
    recompute = m * again / speed
    parts = (compute, recompute, between + data, pipeline - between - recompute - compute)
    scale = 1.0 if mfu is None else compute * gpu.efficiency / mfu / seconds
    return StepTime(
        seconds * scale, *(p * scale for p in parts), mfu=mfu or compute * gpu.efficiency / seconds
    )


def _slowest(config: ModelConfig, layout: Layout, work: Work) -> tuple[float, float]:
    """Model FLOPs and recomputed FLOPs of a micro-batch on one rank of the slowest pipeline stage."""
    block, head = block_flops(config, work.seq_len), head_flops(config)
    attention = 12 * config.n_heads * config.head_dim * work.seq_len
    # of a forward pass, a third of all: everything, or every second product but not attention
    again = {"none": 0.0, "selective": (block - attention) / 6, "full": block / 3}[layout.recompute]
    best = (0.0, 0.0)
    for pp in range(layout.pp):
        runs = layout.parts(config, pp)
        model = sum(map(len, runs)) * block + (head if pp == layout.pp - 1 else 0.0)
        extra = sum(recomputed(layout, run) for run in runs) * again
        best = max(best, (model, extra), key=sum)
    tokens = layout.micro_batch * work.seq_len
    return best[0] * tokens / layout.tp, best[1] * tokens / layout.tp


def _bandwidth(gpu: Gpu, apart: int, ranks: int) -> float:
    """Bytes per second of one rank to the next of a ring of `ranks`, each `apart` from the last.

    Within a machine its links. Between machines, all network cards of a machine serve the rings that leave
    it, one from every `apart` neighbours.
    """
    if apart * ranks <= gpu.per_node:
        return gpu.intra_bytes_per_second
    inside = max(1, gpu.per_node // apart)
    return min(gpu.intra_bytes_per_second, inside * gpu.inter_bytes_per_second)
