"""Rules about layouts that the recipe alone decides; the others are in plan/auto.py."""

from __future__ import annotations

import math
from collections.abc import Iterator

from growlm.recipe.describe import toml_value
from growlm.recipe.keys import Key
from growlm.recipe.problem import Problem
from growlm.recipe.schema import LayoutTable, Recipe

Problems = Iterator[Problem]


def layout_problems(recipe: Recipe) -> Problems:
    """Every problem of the layouts, stage by stage."""
    for index, stage in enumerate(recipe.stages):
        layout = stage.layout
        yield from _tensor_parallel(recipe, index, layout)
        yield from _pipeline(recipe, index, layout)
        yield from _data_parallel(recipe, index, layout)
        if recipe.train.deterministic:
            yield from _deterministic(recipe, index, layout)


def _tensor_parallel(recipe: Recipe, index: int, layout: LayoutTable) -> Problems:
    tp, stage, config = layout.tp or 1, recipe.stages[index], recipe.model_config_of(index)
    shape = {name: getattr(config, name) for name in ("n_heads", "n_kv_heads", "d_ff")}
    sizes = shape | {"vocab_size": config.vocab_size}
    blocks_fit = math.gcd(*shape.values()) % tp == 0
    smaller = f"write tp = {_divisor(math.gcd(*sizes.values()), tp)}"
    for name, size in sizes.items():
        if size % tp == 0 or (name == "n_kv_heads" and size == config.n_heads):
            continue
        rounded = f"write vocab_size = {toml_value(-(-size // tp) * tp)} (rounded up)"
        fix = rounded if name == "vocab_size" and blocks_fit else smaller
        what = f"tp = {tp} does not divide {name} = {size} of {_stage(recipe, index)}"
        yield Problem(_key(index, "tp"), what, fix, "every rank holds an equal share")
    split_time = tp > 1 and layout.sequence_parallel is not False
    if split_time and stage.seq_len % tp:
        what = f"tp = {tp} does not divide seq_len = {stage.seq_len} of {_stage(recipe, index)}"
        fix = f"write seq_len = {-(-stage.seq_len // tp) * tp}, or sequence_parallel = false"
        yield Problem(_key(index, "tp"), what, fix, "sequence parallelism splits the context evenly")


def _pipeline(recipe: Recipe, index: int, layout: LayoutTable) -> Problems:
    layers, parts = recipe.stages[index].n_layers, (layout.pp or 1) * layout.interleave
    if (layout.pp or 1) > 1 and (layout.zero or 0) > 1:
        what = f"{_stage(recipe, index)} has zero = {layout.zero} and pp = {layout.pp}"
        why = "a pipeline keeps its weights and gradients whole until its last micro-batch"
        yield Problem(_key(index, "zero"), what, "write zero = 1, or pp = 1 and a larger tp", why)
    if layout.interleave > 1 and (layout.pp or 1) == 1:
        what = f"{_stage(recipe, index)} has interleave = {layout.interleave} and no pipeline"
        yield Problem(_key(index, "interleave"), what, "write pp = 2 or more, or leave interleave out")
    elif parts > max(layers, 1):
        each = f" x interleave {layout.interleave}" if layout.interleave > 1 else ""
        what = f"pp {layout.pp}{each} is {parts} runs of blocks, and {_stage(recipe, index)} has {layers}"
        fix = f"write pp = {max(1, layers // layout.interleave)} or less"
        yield Problem(_key(index, "pp"), what, fix, "every run has a block")


def _data_parallel(recipe: Recipe, index: int, layout: LayoutTable) -> Problems:
    stage, dp = recipe.stages[index], layout.dp
    if layout.replicas > 1 and layout.zero == 0:
        what = f"{_stage(recipe, index)} has replicas = {layout.replicas}, and with zero = 0 all are copies"
        yield Problem(_key(index, "replicas"), what, "leave replicas out, or write zero = 1")
    if dp is None:
        return
    if dp % layout.replicas:
        what = f"{_stage(recipe, index)} has dp = {dp}, not a multiple of replicas = {layout.replicas}"
        fix = f"write replicas = {_divisor(dp, layout.replicas)}"
        yield Problem(_key(index, "replicas"), what, fix, "every copy is on as many ranks")
    micro = stage.micro_batch_size or 1
    if stage.batch_size % micro == 0 and stage.batch_size % (dp * micro):
        each = f" x micro_batch_size {micro}" if micro > 1 else ""
        what = f"{_stage(recipe, index)} has batch_size {stage.batch_size}, not a multiple of dp {dp}{each}"
        up = -(-stage.batch_size // (dp * micro)) * dp * micro
        fix = f"write dp = {_divisor(stage.batch_size // micro, dp)}, or batch_size = {up}"
        yield Problem(_key(index, "dp"), what, fix, "ranks do equal work")


def _deterministic(recipe: Recipe, index: int, layout: LayoutTable) -> Problems:
    why = "train.deterministic sums whole gradients of micro-batches in one fixed order"
    for name, most in (("tp", 1), ("pp", 1), ("zero", 0)):
        value = getattr(layout, name)
        if value is not None and value > most:
            what = f"{_stage(recipe, index)} has {name} = {value} in a deterministic run"
            yield Problem(
                _key(index, name), what, f"write {name} = {most}, or deterministic = false in [train]", why
            )
    if recipe.stages[index].micro_batch_size is None:
        what = f"{_stage(recipe, index)} leaves micro_batch_size to the number of processes"
        key = ("stages", index, "micro_batch_size")
        yield Problem(key, what, "write micro_batch_size = 1, or another divisor of the batch", why)


def _divisor(n: int, most: int) -> int:
    """The largest divisor of `n` that is at most `most` (and 65,536)."""
    return next(k for k in range(min(n, most, 65_536), 0, -1) if n % k == 0)


def _stage(recipe: Recipe, index: int) -> str:
    return f'stage {index} "{recipe.stages[index].name}"'


def _key(index: int, name: str) -> Key:
    return ("stages", index, "layout", name)
