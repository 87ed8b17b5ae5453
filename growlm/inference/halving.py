"""Batches that a GPU has no memory for, in halves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from growlm.errors import GrowLMError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_halves(run: Callable[[Sequence[Item]], Iterable[Answer]], batch: Sequence[Item]) -> Iterator[Answer]:
    """What `run` gives for a batch, or for its halves if it is too large. Raises GrowLMError: one is."""
    try:
        found = list(run(batch))
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise GrowLMError(
                "The GPU has no memory for a single text",
                why=str(error).partition(". ")[0],
                fix="give a shorter context: --context 2048, or half the precision: --precision bf16",
            ) from error
        found = None
    if found is not None:
        yield from found
        return
    torch.cuda.empty_cache()
    half = len(batch) // 2
    yield from in_halves(run, batch[:half])
    yield from in_halves(run, batch[half:])
