"""What a run measures beside its loss. This floor does not know what a task is: a command brings them along
(growlm/evaluate/training.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from growlm.data.tokenizer import Tokenizer
from growlm.parallel.engine import Engine
from growlm.recipe.schema import Recipe


class Tasks(Protocol):
    """The tasks of a recipe, their items at hand."""

    def measure(
        self, engine: Engine, tokenizer: Tokenizer, context: int, turn: Callable[[], None]
    ) -> list[dict[str, Any]]:
        """Their scores: task, value, low, high, items, chance. A collective: every rank asks the same.

        `turn` is called between batches, on all ranks alike, and may raise `UnfinishedError`.
        """
        ...


class UnfinishedError(Exception):
    """Measuring is to end now, without scores."""


PrepareTasks = Callable[[Recipe], Tasks]
"""Reads the items of `eval.tasks`. Raises RecipeError: a task is unknown, or its data are missing."""
