"""Weights by rows, wherever they lie: in memory, in a checkpoint, in a foreign folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, dtype

from growlm.recipe.shape import ModelConfig


class Weights(Protocol):
    """The tensors of one model under GrowLM's names and in its layout, read by rows."""

    @property
    def config(self) -> ModelConfig:
        """The shape they belong to."""
        ...

    def dtype(self, name: str) -> dtype:
        """How a tensor is stored."""
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (all by default) of a tensor, on the CPU."""
        ...


class MemoryWeights:
    """Weights that are in memory already."""

    def __init__(self, config: ModelConfig, state: Mapping[str, Tensor]) -> None:
        self.config, self.state = config, state

    def dtype(self, name: str) -> dtype:
        """How a tensor is stored."""
        return self.state[name].dtype

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of a tensor; a view, not a copy."""
        return self.state[name].detach()[start:stop]
