"""The layout of a stage over so many processes: what the recipe leaves open is chosen. No torch.

Tensor and pipeline parallelism cost communication for every micro-batch, so there is as little of them as
fits into memory: the fewest ranks for a copy, with tensor parallelism first, inside one machine, and for
these the largest micro-batch. ZeRO above 1 sends weights or gradients for every micro-batch, which costs more
still: it is for what fits in no other way, and not for pipelines, which keep weights and gradients whole
until their last micro-batch. Without a known memory everything is data
parallel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from growlm.errors import RecipeError
from growlm.plan.activations import Work
from growlm.plan.footprint import most_loaded
from growlm.plan.layout import Layout
from growlm.recipe.schema import Recipe, StageTable

FITS = 0.9
"""Share of the memory that the estimate may fill."""


def choose_layout(
    recipe: Recipe, stage_index: int, world: int, *, memory_bytes: int | None = None, per_node: int = 8
) -> Layout:
    """The layout of a stage over `world` processes, each with `memory_bytes` of memory (None: not known).

    What the recipe says is taken as it is; of the rest the first choice is taken that fits. A layout that
    leaves no choice but the micro-batch is never refused for its memory. Raises RecipeError.
    """
    _check_world(recipe, stage_index, world)
    stage, splits = recipe.stages[stage_index], _splits(recipe, stage_index, world, per_node)
    if memory_bytes is None:
        splits = splits[:1]
    options, problem = [], _no_split(stage, world)
    for tp, pp in reversed(splits):
        try:
            options = [*_options(recipe, stage, world, tp, pp), *options]
        except RecipeError as error:
            problem = error
    if not options:
        raise problem
    if memory_bytes is None or world == 1:
        return options[0]
    config, work = recipe.model_config_of(stage_index), Work.of(recipe, stage_index)
    needs = []
    for layout in sorted(options, key=lambda layout: max(layout.zero, 1)):
        needs.append(most_loaded(config, layout, work)[1].total)
        if needs[-1] <= FITS * memory_bytes:
            return layout
    if len({(layout.tp, layout.pp, layout.zero) for layout in options}) == 1:
        return options[-1]
    raise RecipeError(
        f"no layout of stage {stage.name} over {world} processes is estimated to fit into memory",
        where=f"stages.{stage.name}.layout",
        why=f"the smallest needs {min(needs) / 2**30:.3g} GiB on one of them, and "
        f"{FITS * memory_bytes / 2**30:.3g} may be filled",
        fix='write recompute = "full" or a smaller micro_batch_size, or start more processes; '
        "tp, pp and zero written by hand are taken as they are",
    )


def ranks_of(recipe: Recipe) -> int | None:
    """The number of ranks that the recipe's layouts fix, or else the least that every one of them fits.

    None if they leave it open.
    """
    layouts = [stage.layout for stage in recipe.stages]
    named = [(g.dp or 1) * (g.tp or 1) * (g.pp or 1) for g in layouts if g.dp or g.tp or g.pp]
    fixed = [g.dp * g.tp * g.pp for g in layouts if g.dp and g.tp and g.pp]
    return max(fixed) if fixed else math.lcm(*named) if named else None


def check_ranks(recipe: Recipe, world: int) -> None:
    """Raise RecipeError if a stage cannot be laid out over so many ranks, whatever their memory."""
    for index in range(len(recipe.stages)):
        choose_layout(recipe, index, world)


def _check_world(recipe: Recipe, index: int, world: int) -> None:
    """That what is given by hand, and a deterministic run, fit the number of processes."""
    stage, given = recipe.stages[index], recipe.stages[index].layout
    if recipe.train.deterministic and world & (world - 1):
        raise RecipeError(
            f"a deterministic run is over a power of two of processes, and {world} were started",
            where="train.deterministic",
            why="gradients are summed in a binary tree, of which every rank has a whole branch",
            fix=f"start {1 << (world.bit_length() - 1)} processes, or write deterministic = false",
        )
    named = {name: getattr(given, name) for name in ("dp", "tp", "pp")}
    ranks = (given.dp or 1) * (given.tp or 1) * (given.pp or 1)
    if ranks == world or (None in named.values() and world % ranks == 0):
        return
    parts = " x ".join(f"{name} {value}" for name, value in named.items() if value)
    over = f"over {ranks} ranks" if None not in named.values() else f"over a multiple of {ranks} ranks"
    were = "1 was" if world == 1 else f"{world} were"
    nodes, per_node = (ranks // 8, 8) if ranks > 8 and ranks % 8 == 0 else (1, ranks)
    several = f"--nnodes {nodes} " if nodes > 1 else ""
    raise RecipeError(
        f"the recipe lays stage {stage.name} {over} ({parts}), and {were} started",
        where=f"stages.{stage.name}.layout",
        fix=f"torchrun {several}--nproc-per-node {per_node} -m -- growlm train RECIPE, or let GrowLM choose: "
        f"--set stages.{index if '.' in stage.name else stage.name}.layout=auto",
    )


def _splits(recipe: Recipe, index: int, world: int, per_node: int) -> list[tuple[int, int]]:
    """Every (tp, pp) to try, the fewest ranks first, then the larger tp."""
    given, stage, config = recipe.stages[index].layout, recipe.stages[index], recipe.model_config_of(index)
    sizes = [config.n_heads, config.n_kv_heads, config.d_ff, config.vocab_size, per_node]
    if given.sequence_parallel is not False:
        sizes.append(stage.seq_len)
    alone = recipe.train.deterministic
    tps = [tp for tp in range(1, per_node + 1) if all(size % tp == 0 for size in sizes)]
    pps = range(1, max(1, stage.n_layers // given.interleave) + 1)
    if (given.zero or 0) > 1:  # which recipe/check_layout.py refuses in a pipeline
        pps = range(1, 2)
    pairs = [
        (tp, pp)
        for tp in ([given.tp] if given.tp else [1] if alone else tps)
        for pp in ([given.pp] if given.pp else [1] if alone else pps)
        if world % (tp * pp) == 0 and given.dp in (None, world // (tp * pp))
    ]
    return sorted(pairs, key=lambda pair: (pair[0] * pair[1], -pair[0]))


def _options(recipe: Recipe, stage: StageTable, world: int, tp: int, pp: int) -> Iterator[Layout]:
    """The layouts of one split, best first. Raises RecipeError where the batch does not divide."""
    given, dp = stage.layout, world // (tp * pp)
    micro_batches = _micro_batches(stage, dp, pp)
    if dp % given.replicas:
        raise RecipeError(
            f"stage {stage.name} has replicas = {given.replicas}, which does not divide dp = {dp}",
            where=f"stages.{stage.name}.layout.replicas",
            why="every copy is on as many ranks",
            fix=f"write a divisor of {dp}",
        )
    base = Layout(
        dp=dp,
        tp=tp,
        pp=pp,
        replicas=given.replicas,
        interleave=given.interleave,
        sequence_parallel=tp > 1 and given.sequence_parallel is not False,
        recompute=given.recompute,
        recompute_every=given.recompute_every,
        compile=given.compile,
    )
    levels: tuple[Literal[0, 1, 2, 3], ...] = (1, 2, 3) if pp == 1 else (1,)
    if given.zero is not None:
        levels = (given.zero,)  # type: ignore[assignment]  # the schema bounds it
    elif dp == 1 or recipe.train.deterministic:
        levels = (0,)
    for zero in levels:
        for micro_batch in micro_batches:
            yield replace(base, zero=zero, micro_batch=micro_batch)


def _micro_batches(stage: StageTable, dp: int, pp: int) -> list[int]:
    """Sizes of a micro-batch to try, the largest first.

    A pipeline of pp ranks wants 2 pp micro-batches or more, so that it waits for a third of the step at most,
    and needs pp; interleaved, a multiple of pp.
    """
    micro = stage.micro_batch_size or 1
    if stage.batch_size % (dp * micro):
        each = f" x micro_batch_size {micro}" if micro > 1 else ""
        raise RecipeError(
            f"stage {stage.name} has batch_size {stage.batch_size}, not a multiple of dp {dp}{each}",
            where=f"stages.{stage.name}.batch_size",
            why="every data-parallel rank trains on as many sequences",
            fix=f"write batch_size = {-(-stage.batch_size // (dp * micro)) * dp * micro}, or start a number "
            f"of processes that divides {stage.batch_size // micro}",
        )
    share = stage.batch_size // dp
    sizes = [stage.micro_batch_size] if stage.micro_batch_size else _divisors(share)
    unit = pp if stage.layout.interleave > 1 else 1
    filling = [size for size in sizes if share // size >= pp and share // size % unit == 0]
    if not filling:
        what = (
            f"stage {stage.name} has {share} sequences for each of dp {dp}, in micro-batches of {sizes[-1]}"
        )
        needs = f"a multiple of {pp}" if unit > 1 else f"{pp} or more"
        raise RecipeError(
            what,
            where=f"stages.{stage.name}.layout.pp",
            why=f"a pipeline of {pp} ranks needs {needs} micro-batches",
            fix=f"write batch_size = {pp * dp * sizes[-1]} or a multiple of it, a smaller micro_batch_size, "
            "or a smaller pp",
        )
    return [size for size in filling if pp == 1 or share // size >= 2 * pp] or filling


def _divisors(n: int) -> list[int]:
    """All of them, the largest first."""
    return [k for k in range(n, 0, -1) if n % k == 0]


def _no_split(stage: StageTable, world: int) -> RecipeError:
    return RecipeError(
        f"stage {stage.name} cannot be laid out over {world} processes",
        where=f"stages.{stage.name}.layout",
        why="no tp and pp divide its heads, hidden units, vocabulary and the number of processes",
        fix="write dp, tp and pp, or start another number of processes",
    )
