"""Tensors of checkpoints under GrowLM's names, read by rows from however many files they lie in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor

from growlm.checkpoint.format import DTYPES, TensorReader
from growlm.checkpoint.store import Checkpoint
from growlm.recipe.shape import ModelConfig


class StoredWeights:
    """The weights of a model, or one kind of moment, in tensor files (a `Weights`); a context manager.

    `prefix` is what the names have in the files before the parameter's own, as `exp_avg/`.
    """

    def __init__(self, config: ModelConfig, readers: Iterable[TensorReader], prefix: str = "") -> None:
        self.config, self._prefix = config, prefix
        self._readers = {name: reader for reader in readers for name in reader.names}

    @classmethod
    def of(cls, checkpoint: Checkpoint, kind: str = "weight") -> Self:
        """The weights of a checkpoint, or its moments of a kind (`exp_avg`, `exp_avg_sq`).

        Raises:
            CheckpointError: a file is not what the manifest says, or cannot be read.
        """
        manifest = checkpoint.manifest
        prefix = "" if kind == "weight" else f"{kind}/"
        files = {t.file for name, t in manifest.tensors.items() if name.startswith(prefix)}
        config = ModelConfig(**manifest.model)  # type: ignore[arg-type]
        return cls(config, [checkpoint.reader(file) for file in sorted(files)], prefix)

    def dtype(self, name: str) -> torch.dtype:
        """How a tensor is stored."""
        return DTYPES[self._readers[self._prefix + name].info(self._prefix + name).dtype]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (all by default) of a tensor; raises CheckpointError for a short file."""
        return self._readers[self._prefix + name].read(self._prefix + name, start, stop)

    def close(self) -> None:
        """Let go of the files."""
        for reader in self._readers.values():
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
