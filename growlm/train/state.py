"""Everything a run is at one moment, and its way to disk and back.

What is here is all that decides the next step: resumed == straight, bit for bit, because the batch is a
function of the step, the learning rate of the recipe, and the rest is saved. Of every tensor a rank has its
own piece; everything else is the same on all ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from growlm.checkpoint.store import Checkpoint
from growlm.checkpoint.tensors import StoredTensors
from growlm.errors import CheckpointError
from growlm.growth.weights import Weights
from growlm.model.decoder import Decoder
from growlm.model.init import init_rows
from growlm.model.masks import Ramp
from growlm.model.parameters import parameter_table
from growlm.parallel.engine import Engine
from growlm.parallel.world import World
from growlm.plan.auto import choose_layout
from growlm.plan.layout import Layout, written_by
from growlm.plan.pieces import Piece
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.train.guard import SpikeGuard
from growlm.train.optimizer import Births, Optimizer
from growlm.train.saver import Shard

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
STATE_BYTES = 12  # per parameter: fp32 weight and two fp32 moments
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

ReadPiece = Callable[[str, Piece], Tensor]
"""(parameter name, piece) -> the values there."""


def load_model(checkpoint: Checkpoint) -> Decoder:
    """The whole model of a verified checkpoint, unmasked, in fp32 on the CPU.

    Raises CheckpointError if its tensors do not fit.
    """
    config = config_of(checkpoint)
    check_fits(checkpoint, config)
    model = Decoder(config)
    model.load_state_dict(checkpoint.load(MODEL_FILE))
    return model


def config_of(checkpoint: Checkpoint) -> ModelConfig:
    """The shape of a checkpoint's model. Raises CheckpointError if its manifest has none."""
    try:
        return ModelConfig(**checkpoint.manifest.model)  # type: ignore[arg-type]
    except TypeError as error:
        raise _unfit(checkpoint, str(error)) from error


@dataclass
class Progress:
    """How far a run is. `updates` are steps that were applied; `flops` and `train_seconds` are totals."""

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    tokens: int = 0
    updates: int = 0
    skipped: int = 0
    train_seconds: float = 0.0
    flops: float = 0.0


@dataclass
class TrainState:
    """Model, optimizer, guard and progress, with the history of growth."""

    config: ModelConfig
    engine: Engine
    optimizer: Optimizer
    guard: SpikeGuard
    progress: Progress = field(default_factory=Progress)
    births: Births = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)

    @property
    def model(self) -> Decoder:
        """The model, where this rank has all of it."""
        return self.engine.model

    @property
    def ramp(self) -> Ramp | None:
        """The mask ramp of the growth into this stage, if there was one."""
        return self.ramp_of(self.lineage, self.progress.stage)

    @staticmethod
    def ramp_of(lineage: list[Any], stage: int) -> Ramp | None:
        """The mask ramp of the growth into `stage`, if the lineage has one."""
        if not lineage or lineage[-1]["stage"] != stage:
            return None
        return Ramp.from_dict(lineage[-1]["ramp"])

    @property
    def mask(self) -> float:
        """Value of the mask after the steps done so far; 1 without a ramp."""
        return self.ramp.value(self.progress.stage_step) if self.ramp else 1.0

    @classmethod
    def fresh(cls, recipe: Recipe, world: World) -> TrainState:
        """The state before the first step, from random weights."""
        config = recipe.model_config_of(0)
        table = parameter_table(config)

        def read(name: str, piece: Piece) -> Tensor:
            return init_rows(table[name], recipe.seed, *piece.ranges[0])[:, *piece.slices[1:]]

        return cls.around(config, read, recipe, world)

    @classmethod
    def around(cls, config: ModelConfig, read: ReadPiece, recipe: Recipe, world: World) -> TrainState:
        """The state before the first step with given weights, and an optimizer that remembers nothing."""
        engine = engine_of(config, recipe, 0, world)
        with world.together():
            engine.fill(read)
        return cls(config, engine, optimizer_of(engine, recipe, {}), SpikeGuard(recipe.guard))

    @classmethod
    def load(cls, checkpoint: Checkpoint, recipe: Recipe, world: World) -> TrainState:
        """The state that a verified checkpoint holds. Raises CheckpointError if its tensors do not fit."""
        manifest: Any = checkpoint.manifest
        with world.together():
            config = config_of(checkpoint)
            check_fits(checkpoint, config)
        engine = engine_of(config, recipe, manifest.stage, world)
        optimizer = optimizer_of(engine, recipe, manifest.births)
        with world.together(), checkpoint.open() as tensors:
            engine.fill(partial(stored_piece, tensors))
            fill_moments(optimizer, checkpoint)
        guard = SpikeGuard(recipe.guard)
        if manifest.guard:
            guard.load_state_dict(manifest.guard)
        progress = Progress(**{name: getattr(manifest, name) for name in asdict(Progress())})
        return cls(config, engine, optimizer, guard, progress, manifest.births, list(manifest.lineage))

    def shards(self) -> dict[str, dict[str, Shard]]:
        """What this rank writes, by file; the values are the tensors themselves, not copies."""
        engine, table = self.engine, parameter_table(self.config)
        written = written_by(self.config, engine.layout, engine.mesh.rank)
        moments = self.optimizer.state_dict()

        def shard(name: str, held: Tensor) -> Shard:
            piece, first = written[name], engine.pieces[name].ranges[0][0]
            start, stop = piece.ranges[0]
            return Shard(piece, table[name].shape, held[start - first : stop - first])

        return {
            MODEL_FILE: {n: shard(n, engine.parameters[n]) for n in written},
            OPTIMIZER_FILE: {
                key: shard(n, held)
                for key, held in moments.items()
                if (n := key.partition("/")[2]) in written
            },
        }

    def fields(self, facts: dict[str, Any], boundary: Literal["before_growth"] | None) -> dict[str, Any]:
        """What the manifest says beside tensors; `facts` are the hashes and the environment."""
        return {
            **{k: v for k, v in asdict(self.progress).items() if k != "step"},
            "model": self.config.to_dict(),
            "mask": self.mask,
            "lineage": self.lineage,
            "births": self.births,
            "guard": self.guard.state_dict(),
            "boundary": boundary,
            **facts,
        }


def engine_of(config: ModelConfig, recipe: Recipe, stage: int, world: World) -> Engine:
    """The engine of a stage over all ranks, its parameters empty."""
    layout = layout_of(recipe, stage, world)
    return Engine(
        config,
        layout,
        world.rank,
        world.device,
        DTYPES[recipe.train.precision],
        recipe.stages[stage].batch_size // (layout.dp * layout.micro_batch),
        deterministic=recipe.train.deterministic,
    )


def layout_of(recipe: Recipe, stage: int, world: World) -> Layout:
    """The layout of a stage over these ranks. Raises RecipeError if there is none."""
    memory = None
    if world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE") or 8)  # as the launcher says
    return choose_layout(recipe, stage, world.size, memory_bytes=memory, per_node=per_node)


def optimizer_of(engine: Engine, recipe: Recipe, births: Births) -> Optimizer:
    """The optimizer over this rank's pieces."""
    gather = engine.gather if engine.layout.world > 1 else None
    return Optimizer(engine.config, engine.parameters, engine.pieces, recipe.optim, births, gather)


@torch.no_grad()
def fill_moments(optimizer: Optimizer, checkpoint: Checkpoint) -> None:
    """Read what the optimizer remembers of its pieces. Raises CheckpointError if it is not there."""
    pieces = optimizer.state_pieces()
    with checkpoint.open() as tensors:
        for key, tensor in optimizer.state_dict().items():
            if key not in checkpoint.manifest.tensors:
                raise _unfit(checkpoint, f"there is no {key}")
            tensor.copy_(stored_piece(tensors, key, pieces[key]))


def piece_of_rows(weights: Weights, name: str, piece: Piece) -> Tensor:
    """A piece of what can only be read by rows."""
    return weights.read(name, *piece.ranges[0])[:, *piece.slices[1:]]


def stored_piece(tensors: StoredTensors, name: str, piece: Piece) -> Tensor:
    """A piece of a checkpoint's tensor; nothing else is read."""
    return tensors.read(name, *piece.ranges[0], piece.ranges[1] if len(piece.ranges) > 1 else None)


def check_fits(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Raise CheckpointError unless it has every tensor of the model, in its shape, and no other."""
    table = parameter_table(config)
    held = checkpoint.names(MODEL_FILE)
    why = [f"{name} is only in one of the two" for name in sorted(set(held) ^ table.keys())]
    for name in table.keys() & set(held):
        shape = tuple(checkpoint.manifest.tensors[name].shape)
        if shape != table[name].shape:
            why.append(f"{name} is {shape}, not {table[name].shape}")
    if why:
        raise _unfit(checkpoint, why[0])


def _unfit(checkpoint: Checkpoint, why: str) -> CheckpointError:
    what = "the tensors of a checkpoint do not fit the model in its manifest"
    return CheckpointError(what, where=str(checkpoint.path), why=why)
