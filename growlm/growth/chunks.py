"""A grown tensor as a stream of rows: bounded memory for a tensor of any size."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from growlm.growth.apply import Kind, ReadRows, grow_rows
from growlm.growth.operators import Growth
from growlm.model.parameters import Parameter

CORES = os.cpu_count() or 1
CHUNK_BYTES = 2 << 20  # a few of these stay in the cache from reading to writing


def grow_chunks(
    growth: Growth,
    parameter: Parameter,
    kind: Kind,
    read: ReadRows,
    rows: tuple[int, int] | None = None,
) -> Iterator[Tensor]:
    """The rows [start, stop) of a grown tensor in order, some at a time, or all; arguments as of `grow_rows`.

    While the caller writes a chunk, every core grows another: `read` is called from several threads.
    """
    first, end = rows or (0, parameter.shape[0])
    step = max(1, CHUNK_BYTES // (4 * parameter.numel // parameter.shape[0]))
    starts = range(first, end, step)

    def grown(start: int) -> Tensor:
        return grow_rows(growth, parameter, kind, start, min(end, start + step), read)

    if len(starts) == 1:
        yield grown(first)
        return
    ahead: deque[Future[Tensor]] = deque()
    for start in starts:
        ahead.append(_workers().submit(grown, start))
        if len(ahead) > CORES:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


@cache
def _workers() -> ThreadPoolExecutor:
    """One pool for the process: the memory that a thread freed stays with it, so more threads add up."""
    return ThreadPoolExecutor(CORES)


os.register_at_fork(after_in_child=_workers.cache_clear)  # threads stay with the parent


@contextmanager
def one_thread() -> Iterator[None]:
    """Grow with one thread of torch: a chunk stays in one core's cache, and is too small to be shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
