"""Initial values, addressable by position: any rows of a tensor can be made without the rest of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from growlm.model.parameters import Parameter

CHUNK = 1 << 18  # values made at a time: they stay in the cache

QUANTILES = torch.special.ndtri((torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)).float()
"""The standard normal distribution as 65,536 equally likely values."""


def init_rows(parameter: Parameter, seed: int, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of a parameter at initialisation, fp32."""
    shape = (stop - start, *parameter.shape[1:])
    if parameter.init != "normal":
        return torch.full(shape, 1.0 if parameter.init == "ones" else 0.0)
    return normal_rows(seed, parameter.name, shape, start).mul_(parameter.std)


def normal_rows(seed: int, name: str, shape: tuple[int, ...], start: int) -> Tensor:
    """Standard normal numbers (rows, ...), fp32: those of rows `start` on of the tensor `name`."""
    return _rows(seed, name, shape, start, np.uint16, _quantiles)


def _quantiles(bits: NDArray[np.uint16]) -> Tensor:
    return QUANTILES.index_select(0, torch.from_numpy(bits.astype(np.int32)))


def uniform_rows(seed: int, name: str, shape: tuple[int, ...], start: int) -> Tensor:
    """The same, uniform with mean 0 and variance 1 on 256 levels; for noise, at a third of the time."""
    std = math.sqrt((256**2 - 1) / 12)
    return _rows(
        seed, name, shape, start, np.uint8, lambda bits: torch.from_numpy(bits).float().sub_(127.5).div_(std)
    )


def _rows(
    seed: int,
    name: str,
    shape: tuple[int, ...],
    start: int,
    dtype: type[np.uint8] | type[np.uint16],
    values: Callable[[NDArray[Any]], Tensor],
) -> Tensor:
    """Rows of an endless sequence that belongs to a seed and a name, made from random integers.

    The generator can jump, so the bits are the same wherever a tensor is cut: in memory, shard or stream.
    """
    generator = np.random.PCG64(xxhash.xxh3_64_intdigest(name.encode(), seed=seed & 0xFFFFFFFF))
    out = torch.empty(math.prod(shape))
    begin = start * math.prod(shape[1:])
    per_word = 8 // dtype().itemsize
    generator.advance(begin // per_word)
    spare = begin % per_word
    for first in range(0, len(out), CHUNK):
        piece = out[first : first + CHUNK]
        words = generator.random_raw(-(-(spare + len(piece)) // per_word))
        piece.copy_(values(words.view(dtype)[spare : spare + len(piece)]))
        if spare:  # the last word of this chunk is also the first of the next
            generator.advance(-1)
    return out.view(shape)
