"""A grown tensor as a stream of rows: bounded memory for a tensor of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from growlm.growth.apply import Kind, ReadRows, grow_rows
from growlm.growth.operators import Growth
from growlm.model.parameters import Parameter

CHUNK_BYTES = 2 << 20  # a few of these stay in the cache from reading to writing


def grow_chunks(growth: Growth, parameter: Parameter, kind: Kind, read: ReadRows) -> Iterator[Tensor]:
    """The rows of a grown tensor in order, some at a time; arguments as of `grow_rows`."""
    rows = parameter.shape[0]
    step = max(1, CHUNK_BYTES // (4 * parameter.numel // rows))
    for start in range(0, rows, step):
        yield grow_rows(growth, parameter, kind, start, min(rows, start + step), read)


@contextmanager
def one_thread() -> Iterator[None]:
    """Grow with one thread of torch: a chunk stays in one core's cache, and is too small to be shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
