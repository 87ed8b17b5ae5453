"""A stage over any number of ranks, put together in one process without memory, devices or a network.

Models are built on the meta device and sharded over torch's fake process group, one rank after the other, by
the engine that trains; the shapes that come out must be those of the layout, and the pieces of all ranks
must make up every tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from growlm.checkpoint.tiling import tiling_problem
from growlm.errors import GrowLMError
from growlm.model.parameters import n_parameters, parameter_table
from growlm.parallel.engine import Engine
from growlm.plan.activations import Work
from growlm.plan.auto import choose_layout
from growlm.plan.footprint import Footprint, most_loaded
from growlm.plan.layout import Layout, parameters_of
from growlm.plan.pieces import piece_of
from growlm.plan.traffic import Traffic, balance, bubble, traffic
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig


@dataclass(frozen=True)
class Rehearsal:
    """A stage as it would be laid out; memory and traffic are those of the fullest rank and stage."""

    name: str
    layout: Layout
    parameters: int
    largest_share: int
    """Parameters on the rank that holds most."""
    micro_batches: int
    ranks_built: int
    fullest_rank: int
    memory: Footprint
    traffic: Traffic
    balance: list[float]
    bubble: float


def rehearse(recipe: Recipe, stage: int, world: int, memory_bytes: int | None) -> Rehearsal:
    """Lay a stage out over `world` ranks and check every shard's shape.

    Raises RecipeError if there is no such layout, GrowLMError if a shape is not as planned.
    """
    layout = choose_layout(recipe, stage, world, memory_bytes=memory_bytes)
    config, work = recipe.model_config_of(stage), Work.of(recipe, stage)
    check_tiling(config, layout)
    ranks = _some_ranks(layout)
    deterministic = recipe.train.deterministic
    shares = [_build(config, layout, rank, work.micro_batches(layout), deterministic) for rank in ranks]
    rank, memory = most_loaded(config, layout, work)
    flows = [traffic(config, layout, work, pp) for pp in range(layout.pp)]
    return Rehearsal(
        name=recipe.stages[stage].name,
        layout=layout,
        parameters=n_parameters(config),
        largest_share=max(shares),
        micro_batches=work.micro_batches(layout),
        ranks_built=len(ranks),
        fullest_rank=rank,
        memory=memory,
        traffic=max(flows, key=lambda flow: flow.total),
        balance=balance(config, layout, work.seq_len),
        bubble=bubble(layout, work),
    )


def check_tiling(config: ModelConfig, layout: Layout) -> None:
    """That the pieces of all ranks are every parameter, each element once. Raises GrowLMError."""
    table = parameter_table(config)
    held = {name for pp in range(layout.pp) for name in parameters_of(config, layout, pp)}
    places = [(tp, shard) for tp in range(layout.tp) for shard in range(layout.shards)]
    for name, p in table.items():
        if p.layer not in (None, 0):  # all layers are cut alike
            continue
        used = places if p.tp_dim is not None else places[: layout.shards]
        pieces = [piece_of(p, tp=(tp, layout.tp), shard=(shard, layout.shards)) for tp, shard in used]
        problem = tiling_problem(p.shape, [(piece.start, piece.shape) for piece in pieces if piece.numel])
        if problem:
            raise GrowLMError(f"the pieces of {name} do not make it up", why=problem)
    if held != table.keys():
        raise GrowLMError("no rank holds " + ", ".join(sorted(table.keys() - held)))


def _some_ranks(layout: Layout) -> list[int]:
    """The first and the last rank of every pipeline stage: both ends of every other dimension."""
    per_stage = layout.dp * layout.tp
    return sorted({pp * per_stage + at for pp in range(layout.pp) for at in (0, per_stage - 1)})


def _build(config: ModelConfig, layout: Layout, rank: int, micro_batches: int, deterministic: bool) -> int:
    """Put the engine of a rank together; the parameters that it holds. Raises GrowLMError."""
    with _pretend(rank, layout.world):
        engine = Engine(
            config,
            layout,
            rank,
            torch.device("meta"),
            torch.bfloat16,
            micro_batches,
            deterministic=deterministic,
        )
        for name, piece in engine.pieces.items():
            shape = tuple(engine.parameters[name].shape)
            if shape != piece.shape:
                raise GrowLMError(f"{name} is {shape} on rank {rank}, planned was {piece.shape}")
        return sum(parameter.numel() for parameter in engine.parameters.values())


@contextmanager
def _pretend(rank: int, world: int) -> Iterator[None]:
    """Be one rank of a group whose collectives do nothing."""
    if world == 1:
        yield
        return
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()
