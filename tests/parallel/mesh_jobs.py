"""What the tests of the mesh, of sampling and of closing an engine run in the shared ranks."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from growlm.parallel.engine import Engine
from growlm.parallel.world import World, join
from growlm.plan.layout import Layout
from growlm.recipe.shape import ModelConfig
from growlm.train import validate
from tests.parallel.jobs import Training, engine_of


def _engine(config: dict[str, Any], layout: dict[str, Any], world: World) -> Engine:
    return engine_of(ModelConfig(**config), Layout(**layout), Training(), world)


def timeouts(config: dict[str, Any], layout: dict[str, Any]) -> list[float]:
    """Seconds that a collective may take, in each group of the mesh and in all that this rank knows."""
    with join("cpu") as world:
        mesh = _engine(config, layout, world).mesh.device_mesh
        assert isinstance(mesh, DeviceMesh)
        groups = [*mesh.get_all_groups(), *dist.distributed_c10d._world.pg_map]
        assert len(groups) > 4
        return [g._get_backend(world.device).options._timeout.total_seconds() for g in groups]


class Letters:
    """A tokenizer of numbers, whose texts are told apart at sight."""

    eos_id, vocab_size = 0, 50

    def encode(self, text: str) -> list[int]:
        return list(map(int, text.split()))

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def sampled(config: dict[str, Any], layout: dict[str, Any]) -> tuple[str, int]:
    """The text of a rank where every rank draws its own tokens, and all but rank 0 an early end."""
    steps = 0

    def draw(*_: Any) -> int:
        nonlocal steps
        steps += 1
        return 0 if world.rank and steps == 2 else 10 * world.rank + steps

    with join("cpu") as world:
        engine = _engine(config, layout, world)
        before, validate._draw = validate._draw, draw
        try:
            text = validate.generate(engine, Letters(), "1 2", tokens=5, context=8, seed=1)  # type: ignore[arg-type]
        finally:
            validate._draw = before
        return text, steps


def alive(config: dict[str, Any], layout: dict[str, Any]) -> int:
    """How many parameters are still in memory once an engine is closed."""
    how = Training()
    with join("cpu") as world:
        engine = _engine(config, layout, world)
        rows = engine.sequences(how.batch)
        tokens = torch.arange(len(rows) * how.length).view(len(rows), how.length) % engine.config.vocab_size
        engine.forward_backward(tokens, tokens)
        held: list[weakref.ref[Tensor]] = [weakref.ref(p) for p in engine._parameters.values()]
        gc.disable()
        try:
            engine.close()
            del engine
            return sum(parameter() is not None for parameter in held)
        finally:
            gc.enable()
