"""Every layout of a stage: those that fit, fastest first, and why the others are out. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from growlm.plan.activations import Work
from growlm.plan.footprint import most_loaded
from growlm.plan.layout import Layout, Recompute
from growlm.plan.machines import Gpu
from growlm.plan.step_time import StepTime, step_time
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig

FITS = 0.9
"""Share of the memory that the estimate may fill."""

RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")

Split = tuple[int, int]
"""(tp, pp)"""


@dataclass(frozen=True)
class Ranked:
    """A layout that fits: its step, and the bytes of its most loaded rank."""

    layout: Layout
    step: StepTime
    memory: int


@dataclass(frozen=True)
class Rejected:
    """What is out, and why. `bytes_needed`: of the smallest that was tried, where it is memory."""

    what: str
    why: str
    bytes_needed: int = 0


@dataclass(frozen=True)
class Ranking:
    """All layouts of a stage over so many GPUs."""

    fits: list[Ranked]
    rejected: list[Rejected]


def rank_layouts(recipe: Recipe, stage_index: int, world: int, gpu: Gpu) -> Ranking:
    """Every layout of a stage over `world` GPUs, whatever the recipe says of tp, pp, ZeRO, recomputation and
    micro-batches; its interleave, and that it is deterministic, are kept."""
    stage, work = recipe.stages[stage_index], Work.of(recipe, stage_index)
    config = recipe.model_config_of(stage_index)
    base = Layout(interleave=stage.layout.interleave, compile=stage.layout.compile)
    fits: list[Ranked] = []
    rejected: list[Rejected] = []
    for tp, pp in _splits(world, gpu.per_node, max(1, config.n_layers)):
        problem = _tensor_problem(config, work, tp)
        if problem and pp > 1:  # said for pp = 1
            continue
        problem = problem or _split_problem(config, work, world, tp, pp, base.interleave)
        if problem is None and recipe.train.deterministic and tp * pp > 1:
            problem = "a deterministic run is data parallel"
        if problem:
            rejected.append(Rejected(f"tp {tp} x pp {pp}", problem))
            continue
        split = replace(base, dp=world // (tp * pp), tp=tp, pp=pp, sequence_parallel=tp > 1)
        for zero in (0,) if recipe.train.deterministic else _zeros(split):
            found, out = _of_level(config, replace(split, zero=zero), work, gpu)
            fits += found
            rejected += out
    return Ranking(sorted(fits, key=lambda ranked: ranked.step.seconds), rejected)


@lru_cache(maxsize=65_536)
def best_layout(config: ModelConfig, work: Work, world: int, gpu: Gpu) -> Ranked | None:
    """The fastest layout that fits, None if none does. Of micro-batches only powers of two up to 8 are tried,
    and recomputation only where it does not fit without."""
    timed: list[tuple[float, int, Layout]] = []
    for tp, pp in _splits(world, gpu.per_node, max(1, config.n_layers)):
        if _tensor_problem(config, work, tp) or _split_problem(config, work, world, tp, pp, 1):
            continue
        split = Layout(dp=world // (tp * pp), tp=tp, pp=pp, sequence_parallel=tp > 1)
        micros = [k for k in _micro_batches(split, work) if k in ((1, 2, 4, 8) if pp > 1 else (1, 8))]
        for zero in (z for z in _zeros(split) if z != 2):
            for micro in micros if pp > 1 or zero == 3 else micros[:1]:
                layout = replace(split, zero=zero, micro_batch=micro)
                timed.append((step_time(config, layout, work, gpu).seconds, len(timed), layout))
    best: Ranked | None = None
    for seconds, _, layout in sorted(timed):
        if best is not None and seconds >= best.step.seconds:
            break
        for recompute in RECOMPUTE:
            tried = replace(layout, recompute=recompute)
            memory = most_loaded(config, tried, work)[1].total
            if memory <= FITS * gpu.memory_bytes:
                ranked = Ranked(tried, step_time(config, tried, work, gpu), memory)
                best = min(best or ranked, ranked, key=lambda r: r.step.seconds)
                break
    return best


def _splits(world: int, per_node: int, layers: int) -> Iterator[Split]:
    """Every tp inside a machine with every pp that has a layer for each rank, over `world`."""
    for tp in (tp for tp in range(1, min(per_node, world) + 1) if world % tp == 0):
        for pp in (pp for pp in range(1, min(layers, world // tp) + 1) if (world // tp) % pp == 0):
            yield tp, pp


def _tensor_problem(config: ModelConfig, work: Work, tp: int) -> str | None:
    """Why so many tensor-parallel ranks are impossible; None if they are not."""
    sizes = {name: getattr(config, name) for name in ("n_heads", "n_kv_heads", "d_ff", "vocab_size")}
    for name, size in (sizes | {"seq_len": work.seq_len}).items():
        if size % tp:
            return f"tp {tp} does not divide {name} {size}"
    return None


def _split_problem(
    config: ModelConfig, work: Work, world: int, tp: int, pp: int, interleave: int
) -> str | None:
    """Why a batch, or the blocks, cannot be split so; None if they can."""
    dp = world // (tp * pp)
    if work.batch_size % dp:
        return f"batch_size {work.batch_size} is not a multiple of dp {dp}"
    if pp > 1 and pp * interleave > config.n_layers:
        return f"pp {pp} x interleave {interleave} is more than {config.n_layers} layers"
    share = work.batch_size // dp
    if share < pp or (interleave > 1 and pp > 1 and share % pp):
        return f"a pipeline of {pp} needs as many micro-batches, and there are {share} sequences"
    return None


def _zeros(split: Layout) -> tuple[int, ...]:
    """ZeRO levels to try; a pipeline keeps weights and gradients whole."""
    return (0,) if split.dp == 1 else (1, 2, 3) if split.pp == 1 else (1,)


def _micro_batches(split: Layout, work: Work) -> list[int]:
    """Micro-batches that divide a rank's share of the batch and fill the pipeline, the smallest first."""
    share = work.batch_size // split.dp
    unit = split.pp if split.interleave > 1 else 1
    sizes = (k for k in range(1, min(share, 64) + 1) if share % k == 0)
    return [k for k in sizes if share // k >= split.pp and share // k % unit == 0]


def _of_level(
    config: ModelConfig, level: Layout, work: Work, gpu: Gpu
) -> tuple[list[Ranked], list[Rejected]]:
    """A split at a ZeRO level: every recomputation and micro-batch that fits, and what does not with any."""
    fits: list[Ranked] = []
    needs = {}
    for recompute in RECOMPUTE:
        found, least = _fitting(config, replace(level, recompute=recompute), work, gpu)
        fits += found
        if not found:
            needs[recompute] = least
    if not needs:
        return fits, []
    zero = f", ZeRO {level.zero}" if level.dp > 1 else ""
    gib = ", ".join(f"{least / 2**30:.3g} GiB (recompute {how})" for how, least in needs.items())
    why = f"needs {gib} of {FITS * gpu.memory_bytes / 2**30:.3g} that may be filled"
    return fits, [Rejected(f"tp {level.tp} x pp {level.pp}{zero}", why, min(needs.values()))]


def _fitting(config: ModelConfig, shaped: Layout, work: Work, gpu: Gpu) -> tuple[list[Ranked], int]:
    """The micro-batches with which a layout fits, and the bytes of the smallest one."""
    found, least = [], 0
    for micro in _micro_batches(shaped, work):
        layout = replace(shaped, micro_batch=micro)
        memory = most_loaded(config, layout, work)[1].total
        least = least or memory
        if memory > FITS * gpu.memory_bytes:  # and larger ones need more
            break
        found.append(Ranked(layout, step_time(config, layout, work, gpu), memory))
    return found, least
