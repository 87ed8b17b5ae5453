"""Tensors of checkpoints under GrowLM's names, read by rows from however many files they lie in."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from growlm.checkpoint.store import Checkpoint
from growlm.checkpoint.tensors import StoredTensors
from growlm.recipe.shape import ModelConfig


class StoredWeights:
    """The weights of a model, or one kind of moment, in tensor files (a `Weights`); a context manager.

    `prefix` is what the names have in the files before the parameter's own, as `exp_avg/`. At the end it
    closes `tensors`.
    """

    def __init__(self, config: ModelConfig, tensors: StoredTensors, prefix: str = "") -> None:
        self.config, self._tensors, self._prefix = config, tensors, prefix

    @classmethod
    def of(cls, checkpoint: Checkpoint, kind: str = "weight") -> Self:
        """The weights of a checkpoint, or its moments of a kind (`exp_avg`, `exp_avg_sq`)."""
        config = ModelConfig(**checkpoint.manifest.model)  # type: ignore[arg-type]
        return cls(config, checkpoint.open(), "" if kind == "weight" else f"{kind}/")

    def dtype(self, name: str) -> torch.dtype:
        """How a tensor is stored."""
        return self._tensors.dtype(self._prefix + name)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (all by default) of a tensor; raises what `StoredTensors.read` does."""
        return self._tensors.read(self._prefix + name, start, stop)

    def close(self) -> None:
        """Let go of the files."""
        self._tensors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
