"""How long an optimizer step takes, from the shape, the layout and the device. No torch.

A micro-batch on a rank of the slowest pipeline stage takes

    t = matmul FLOPs / (peak x efficiency) + bytes of everything else / memory bandwidth
      + bytes sent among tensor- and pipeline-parallel ranks / bandwidth          none of it overlaps

and a step of m of them (m + (pp - 1) / interleave) t (Narayanan et al., 2104.04473, section 2.2), then the
optimizer and what is left of the data-parallel traffic. That overlaps with the computing of one micro-batch,
under ZeRO 2 and 3 of all, since it comes with every one; a share of it never does (UNHIDDEN).
Attention counts over the whole square, as in `flops.py`: causal kernels do half of it, half as efficiently.
"""

from __future__ import annotations

from dataclasses import dataclass

from growlm.plan.activations import Work, block_bytes, recomputed
from growlm.plan.flops import block_flops, flops_per_token, head_flops, recomputed_flops
from growlm.plan.footprint import local_numel
from growlm.plan.layout import Layout
from growlm.plan.machines import Gpu
from growlm.plan.traffic import traffic
from growlm.recipe.shape import ModelConfig

PASSES = 9
"""How often all that a block keeps for its backward pass is read or written in a step: by norms, activations,
residuals, rotations and their gradients, mostly one kernel each. Fitted with `efficiency` to the published
speeds of llm-foundry at 125M to 7B on A100 and H100."""

LOGIT_BYTES = 16
"""Read and written per logit by the loss and its gradient."""

UPDATE_BYTES = 32
"""Read and written per parameter by clipping and AdamW: weight, gradient and two moments in fp32."""

FP32 = {"cpu": 1 / 6, "cuda": 1 / 16}
"""Speed of fp32 matmuls over bf16's: without TF32, 19.5 of 312 TFLOP/s on A100, 67 of 989 on H100; on a CPU
with AMX about a sixth."""

LAUNCH = 3e-4
"""Seconds in which a host launches the kernels of a block, forward and backward: small blocks wait for it."""

LINK = 0.8
"""Share of a link's speed that large collectives reach."""

UNHIDDEN = 0.2
"""Share of the time of data-parallel traffic that computing never hides."""


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
    m, last = work.micro_batches(layout), layout.pp - 1
    total = flops_per_token(config, work.seq_len) * work.batch_size * work.seq_len
    slowest, mean, again = _busy(config, layout, work, gpu)
    sent = traffic(config, layout, work, last)
    between = sent.tp / _bandwidth(gpu, 1, layout.tp)
    between += sent.pp / _bandwidth(gpu, layout.dp * layout.tp, layout.pp)
    pipeline = (m * (slowest + again) + between) * (1 + (layout.pp - 1) / (layout.interleave * m))
    data = sent.dp / _bandwidth(gpu, layout.tp, layout.dp)
    data = max(data - slowest * (m if layout.zero >= 2 else 1), UNHIDDEN * data)
    held = sum(local_numel(config, layout, last)) / layout.shards
    update = UPDATE_BYTES * held / gpu.memory_bytes_per_second
    compute = m * mean + update
    seconds = pipeline + data + update
    parts = (compute, m * again, between + data, pipeline - m * (mean + again) - between)
    predicted = total / (layout.world * gpu.peak_flops * seconds)
    scale = predicted / (mfu or predicted)
    return StepTime(seconds * scale, *(part * scale for part in parts), mfu=mfu or predicted)


def _busy(config: ModelConfig, layout: Layout, work: Work, gpu: Gpu) -> tuple[float, float, float]:
    """Seconds of a micro-batch: computing on a rank of the slowest stage, on any, and recomputing there."""
    block, again, head = _block_seconds(config, layout, work, gpu)
    runs = [layout.parts(config, pp) for pp in range(layout.pp)]
    layers = [sum(map(len, parts)) for parts in runs]
    made_again = [sum(recomputed(layout, run) for run in parts) for parts in runs]
    computing = [n * block + (head if pp == layout.pp - 1 else 0.0) for pp, n in enumerate(layers)]
    at = max(range(layout.pp), key=lambda pp: computing[pp] + made_again[pp] * again)
    return computing[at], sum(computing) / layout.pp, made_again[at] * again


def _block_seconds(config: ModelConfig, layout: Layout, work: Work, gpu: Gpu) -> tuple[float, float, float]:
    """Seconds of a micro-batch on one rank: in a block, to make it again, and in head and loss."""
    tokens = layout.micro_batch * work.seq_len
    speed, memory = gpu.peak_flops * gpu.efficiency * layout.tp, gpu.memory_bytes_per_second
    if work.compute_bytes == 4:
        speed *= FP32["cpu" if work.cpu else "cuda"]
    moved = PASSES * block_bytes(config, layout, work, recompute="none") / memory
    flops = block_flops(config, work.seq_len)
    again = recomputed_flops(config, work.seq_len, layout.recompute)
    moved_again = moved / 3 if again else 0.0
    logits = LOGIT_BYTES * tokens * config.vocab_size / layout.tp / memory
    launch = 0.0 if work.cpu else LAUNCH
    return (
        max(tokens * flops / speed + moved, launch),
        tokens * again / speed + moved_again,
        tokens * head_flops(config) / speed + logits,
    )


def _bandwidth(gpu: Gpu, apart: int, ranks: int) -> float:
    """Bytes per second of one rank to the next of a ring of `ranks`, each `apart` from the last.

    Within a machine its links. Between machines, all network cards of a machine serve the rings that leave
    it, one from every `apart` neighbours.
    """
    if apart * ranks <= gpu.per_node:
        return LINK * gpu.intra_bytes_per_second
    inside = max(1, gpu.per_node // apart)
    return LINK * min(gpu.intra_bytes_per_second, inside * gpu.inter_bytes_per_second)
