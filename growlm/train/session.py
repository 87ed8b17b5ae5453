"""What a run works with besides its state: recipe, folder, data, device, record, terminal."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import growlm
from growlm.checkpoint.store import CheckpointStore
from growlm.data.dataset import TokenDataset
from growlm.data.mixture import Mixture, Span
from growlm.data.tokenizer import Tokenizer
from growlm.errors import RecipeError
from growlm.parallel.watchdog import Watchdog
from growlm.parallel.world import World
from growlm.recipe.load import resolve_hash
from growlm.recipe.schema import Recipe
from growlm.train.batches import Batches
from growlm.train.console import Console
from growlm.train.forecast import Forecasts
from growlm.train.peak import matmul_peak_tflops
from growlm.train.record import Recorder
from growlm.train.saver import Saver
from growlm.train.signals import StopRequest
from growlm.train.state import DTYPES, layout_of
from growlm.train.tasks import Tasks

Data = tuple[TokenDataset, Mixture, Tokenizer]
Replay = dict[int, tuple[float | None, float | None]]


@dataclass
class Session:
    """One incarnation of a run."""

    recipe: Recipe
    folder: Path
    dataset: TokenDataset
    mixture: Mixture
    batches: Batches
    tokenizer: Tokenizer
    world: World
    watchdog: Watchdog
    store: CheckpointStore
    saver: Saver
    recorder: Recorder
    console: Console
    stop: StopRequest
    peak_tflops: float
    tasks: Tasks | None = None
    """What the recipe wants measured beside the loss."""
    init_hash: str | None = None
    """Of what the first stage started from."""
    replay: Replay = field(default_factory=dict)
    """Losses and gradient norms that an earlier incarnation recorded past the checkpoint, by step."""
    replayed: int = 0
    spent_seconds: float = 0.0
    """What an earlier incarnation had spent by the time it was killed."""
    last_save: float = field(default_factory=time.monotonic)
    forecasts: Forecasts = field(default_factory=Forecasts)
    save_seconds: float = 0.0
    """For how long the last save held up the training."""

    def facts(self, stage: int) -> dict[str, Any]:
        """What a checkpoint of a stage must know about where it came from."""
        return {
            "recipe_hash": resolve_hash(self.recipe),
            "data_fingerprint": self.dataset.fingerprint,
            "tokenizer_hash": self.dataset.tokenizer_hash,
            "init": self.init_hash,
            "environment": self.environment(stage),
        }

    def environment(self, stage: int) -> dict[str, Any]:
        """What the bits of a stage depend on besides recipe and data."""
        layout = layout_of(self.recipe, stage, self.world)
        over = f"dp {layout.dp} x tp {layout.tp} x pp {layout.pp}"
        if self.recipe.train.deterministic:
            over = "any number of ranks"
        return environment(self.device, self.recipe.train.precision) | {"layout": over}

    @property
    def device(self) -> torch.device:
        """This rank's device."""
        return self.world.device

    @property
    def lags(self) -> bool:
        """Whether the numbers of a step are read while the next one computes."""
        return self.device.type == "cuda"

    def cost(self, train_seconds: float) -> float | None:
        """Money so far; None without a price."""
        price = self.recipe.budget.price_per_hour
        return None if price is None else train_seconds / 3600 * price

    def over_budget(self, train_seconds: float) -> bool:
        """Whether the cost limit is reached."""
        limit, cost = self.recipe.budget.max_cost, self.cost(train_seconds)
        return limit is not None and cost is not None and cost >= limit

    def event(self, step: int, message: str, level: str = "info") -> None:
        """Put a message in the record and on the terminal."""
        self.recorder.append("event", step=step, level=level, message=message)
        self.console.say(message)


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """What the bits of a run depend on besides its recipe and data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "growlm": growlm.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def open_data(recipe: Recipe) -> Data:
    """The prepared data and the order in which this recipe draws it.

    Raises DataError, RecipeError: also for what would fail only in a later stage, such as a validation
    text shorter than its context.
    """
    dataset = TokenDataset.open(Path(recipe.data.path))
    smallest = min(recipe.model_config_of(i).vocab_size for i in range(len(recipe.stages)))
    if dataset.vocab_size > smallest:
        raise RecipeError(
            f"the tokenizer has {dataset.vocab_size} ids, the model only {smallest}",
            where="model.vocab_size",
            why="every token id needs a row of the embedding",
            fix=f"write vocab_size = {-(-dataset.vocab_size // 64) * 64}",
        )
    spans = [
        Span(s.steps, s.batch_size, s.seq_len, recipe.mixture_of(i), s.objectives == "alternating")
        for i, s in enumerate(recipe.stages)
    ]
    mixture = Mixture(dataset, spans, recipe.seed, recipe.objectives)
    for span in spans:
        for source in (name for name, weight in span.weights.items() if weight):
            dataset.validation(source, span.seq_len, span.seq_len)
    if recipe.data.exhausted == "stop":
        _refuse_to_run_out(recipe, mixture)
    return dataset, mixture, Tokenizer.load(dataset.tokenizer_path)


def _refuse_to_run_out(recipe: Recipe, mixture: Mixture) -> None:
    """Raise RecipeError if a stage draws more of a source than there is."""
    for index, stage in enumerate(recipe.stages):
        for source, epochs in mixture.epochs(index, stage.steps).items():
            if epochs > 1:
                raise RecipeError(
                    f"source {source!r} runs out in stage {stage.name}",
                    where="data.exhausted",
                    why=f"by its end the run draws {epochs:.2f} times what there is",
                    fix='add text, lower its weight, train fewer tokens, or write exhausted = "repeat"',
                )


def peak_tflops(recipe: Recipe, device: torch.device) -> float:
    """The matmul ceiling of one device that MFU is measured against, in the recipe's precision."""
    return matmul_peak_tflops(device, DTYPES[recipe.train.precision])


def memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: of the GPU if there is one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
