"""Everything a run is at one moment, and its way to disk and back.

What is here is all that decides the next step: resumed == straight, bit for bit, because the batch is a
function of the step, the learning rate of the recipe, and the rest is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.errors import CheckpointError
from growlm.model.decoder import Decoder
from growlm.model.masks import Ramp
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.train.guard import SpikeGuard
from growlm.train.optimizer import Births, Optimizer

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
STATE_BYTES = 12  # per parameter: fp32 weight and two fp32 moments


def load_model(checkpoint: Checkpoint) -> Decoder:
    """The model of a verified checkpoint, unmasked, in fp32 on the CPU.

    Raises CheckpointError if its tensors do not fit.
    """
    with _must_fit(checkpoint):
        model = Decoder(ModelConfig(**checkpoint.manifest.model))  # type: ignore[arg-type]
        model.load_state_dict(checkpoint.load(MODEL_FILE))
    return model


@contextmanager
def _must_fit(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except (TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            "the tensors of a checkpoint do not fit the model in its manifest",
            where=str(checkpoint.path),
            why=str(error),
        ) from error


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
    model: Decoder
    optimizer: Optimizer
    guard: SpikeGuard
    progress: Progress = field(default_factory=Progress)
    births: Births = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)

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
    def fresh(cls, recipe: Recipe, device: torch.device) -> TrainState:
        """The state before the first step, from random weights."""
        return cls.around(Decoder(recipe.model_config_of(0)).init_weights(recipe.seed).to(device), recipe)

    @classmethod
    def around(cls, model: Decoder, recipe: Recipe) -> TrainState:
        """The state before the first step of a model, with an optimizer that remembers nothing."""
        return cls(model.config, model, Optimizer.of(model, recipe.optim, {}), SpikeGuard(recipe.guard))

    @classmethod
    def load(cls, checkpoint: Checkpoint, recipe: Recipe, device: torch.device) -> TrainState:
        """The state that a verified checkpoint holds. Raises CheckpointError if its tensors do not fit."""
        manifest: Any = checkpoint.manifest
        model = load_model(checkpoint).to(device)
        optimizer = Optimizer.of(model, recipe.optim, manifest.births)
        with _must_fit(checkpoint):
            optimizer.load_state_dict(checkpoint.load(OPTIMIZER_FILE))
        guard = SpikeGuard(recipe.guard)
        if manifest.guard:
            guard.load_state_dict(manifest.guard)
        progress = Progress(**{name: getattr(manifest, name) for name in asdict(Progress())})
        return cls(model.config, model, optimizer, guard, progress, manifest.births, list(manifest.lineage))

    def save(
        self, store: CheckpointStore, facts: dict[str, Any], boundary: Literal["before_growth"] | None
    ) -> Path:
        """Commit a checkpoint; `facts` are the hashes and the environment. Raises DiskError."""
        weights = self.model.state_dict()
        moments = self.optimizer.state_dict()
        store.check_space(STATE_BYTES * sum(t.numel() for t in weights.values()))
        with store.begin(self.progress.step) as pending:
            for file, tensors in ((MODEL_FILE, weights), (OPTIMIZER_FILE, moments)):
                entries = [(n, t.dtype, tuple(t.shape)) for n, t in tensors.items()]
                writer = pending.writer(file, entries)
                for tensor in tensors.values():
                    writer.write(tensor)
            path = pending.commit(
                **{k: v for k, v in asdict(self.progress).items() if k != "step"},
                model=self.config.to_dict(),
                mask=self.mask,
                lineage=self.lineage,
                births=self.births,
                guard=self.guard.state_dict(),
                boundary=boundary,
                **facts,
            )
        store.prune()
        return path
