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
from growlm.recipe.load import resolve_hash
from growlm.recipe.schema import Recipe
from growlm.train.console import Console
from growlm.train.peak import matmul_peak_tflops
from growlm.train.record import Recorder
from growlm.train.signals import StopRequest

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

Data = tuple[TokenDataset, Mixture, Tokenizer]
Replay = dict[int, tuple[float | None, float | None]]


@dataclass
class Session:
    """One incarnation of a run."""

    recipe: Recipe
    folder: Path
    device: torch.device
    dataset: TokenDataset
    mixture: Mixture
    tokenizer: Tokenizer
    store: CheckpointStore
    recorder: Recorder
    console: Console
    stop: StopRequest
    peak_tflops: float
    init_hash: str | None = None
    """Of what the first stage started from."""
    replay: Replay = field(default_factory=dict)
    """Losses and gradient norms that an earlier incarnation recorded past the checkpoint, by step."""
    replayed: int = 0
    last_save: float = field(default_factory=time.monotonic)
    save_seconds: float = 0.0

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint must know about where it came from."""
        return {
            "recipe_hash": resolve_hash(self.recipe),
            "data_fingerprint": self.dataset.fingerprint,
            "tokenizer_hash": self.dataset.tokenizer_hash,
            "init": self.init_hash,
            "environment": environment(self.device, self.recipe.train.precision),
        }

    def cost(self, train_seconds: float) -> float | None:
        """Money so far; None without a price."""
        price = self.recipe.budget.price_per_hour
        return None if price is None else train_seconds / 3600 * price

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


def pick_device(recipe: Recipe) -> torch.device:
    """The recipe's device, and its CPU threads set. Raises RecipeError if it is not there."""
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    wanted = recipe.train.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RecipeError(
            "no CUDA device is visible to torch",
            where="train.device",
            fix='write train.device = "auto" or "cpu", or install a CUDA build of torch',
        )
    return torch.device("cuda" if torch.cuda.is_available() and wanted != "cpu" else "cpu")


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
        Span(s.steps, s.batch_size, s.seq_len, recipe.mixture_of(i)) for i, s in enumerate(recipe.stages)
    ]
    mixture = Mixture(dataset, spans, recipe.seed)
    for span in spans:
        for source in span.weights:
            dataset.validation(source, span.seq_len, span.seq_len)
    return dataset, mixture, Tokenizer.load(dataset.tokenizer_path)


def peak_tflops(recipe: Recipe, device: torch.device) -> float:
    """The matmul ceiling that MFU is measured against, in the recipe's precision."""
    return matmul_peak_tflops(device, DTYPES[recipe.train.precision])


def memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: of the GPU if there is one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
