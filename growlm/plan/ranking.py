"""Every layout of a stage: those that fit, fastest first, and why the others are out. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from growlm.plan.activations import Work
from growlm.plan.footprint import most_loaded
from growlm.plan.layout import Layout
from growlm.plan.machines import Gpu
from growlm.plan.step_time import StepTime, step_time
from growlm.recipe.shape import ModelConfig

FITS = 0.9
"""Share of the memory that the estimate may fill."""


@dataclass(frozen=True)
class Ranked:
    """A layout that fits: its step, and the bytes of its most loaded rank."""

    layout: Layout
    step: StepTime
    memory: int


@lru_cache(maxsize=4096)
def best_layout(config: ModelConfig, work: Work, world: int, gpu: Gpu) -> Ranked | None:
    """The fastest layout that fits, of plain data, tensor and pipeline parallelism; None if none does."""
    timed = [(step_time(config, layout, work, gpu), layout) for layout in _plain(config, work, world, gpu)]
    for step, layout in sorted(timed, key=lambda item: item[0].seconds):
        memory = most_loaded(config, layout, work)[1].total
        if memory <= FITS * gpu.memory_bytes:
            return Ranked(layout, step, memory)
    return None


def _plain(config: ModelConfig, work: Work, world: int, gpu: Gpu) -> Iterator[Layout]:
    """Layouts that divide everything, with and without recomputation."""
    sizes = (config.n_heads, config.n_kv_heads, config.d_ff, config.vocab_size, work.seq_len, world)
    tps = [tp for tp in (1, 2, 4, 8) if tp <= gpu.per_node and all(size % tp == 0 for size in sizes)]
    for tp in tps:
        for pp in (pp for pp in range(1, max(1, config.n_layers) + 1) if (world // tp) % pp == 0):
            dp = world // (tp * pp)
            if work.batch_size % dp:
                continue
            share = work.batch_size // dp
            base = Layout(dp=dp, tp=tp, pp=pp, zero=0 if dp == 1 else 1, sequence_parallel=tp > 1)
            for micro in (k for k in (1, 2, 4, 8, 16) if share % k == 0 and share // k >= pp):
                for recompute in ("none", "selective", "full"):
                    layout = replace(base, micro_batch=micro, recompute=recompute)
                    yield layout
                    if dp > 1 and pp == 1:
                        yield replace(layout, zero=3)
