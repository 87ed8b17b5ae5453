"""Initial values, addressable by row: any slice of a tensor can be made without the rest of it."""

from __future__ import annotations

import numpy as np
import torch
import xxhash
from torch import Tensor

from growlm.model.parameters import Parameter


def row_generator(seed: int, name: str, row: int) -> np.random.Generator:
    """Random numbers that belong to one row of one tensor: the same in memory, in a shard, in a stream."""
    key = xxhash.xxh3_64_intdigest(name.encode(), seed=seed & 0xFFFFFFFF)
    return np.random.Generator(np.random.Philox(key=np.array([key, row], dtype=np.uint64)))


def init_rows(parameter: Parameter, seed: int, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of a parameter at initialisation, fp32."""
    shape = (stop - start, *parameter.shape[1:])
    if parameter.init != "normal":
        return torch.full(shape, 1.0 if parameter.init == "ones" else 0.0)
    values = np.empty(shape, dtype=np.float32)
    for k, row in enumerate(range(start, stop)):
        values[k] = row_generator(seed, parameter.name, row).standard_normal(shape[1:], dtype=np.float32)
    return torch.from_numpy(values).mul_(parameter.std)
