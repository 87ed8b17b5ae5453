"""Which copies can part ways: units that are equal in every tensor get equal gradients for ever."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from growlm.growth.operators import Growth
from growlm.growth.weights import Weights
from growlm.model.parameters import parameter_table

CHUNK_BYTES = 4 << 20
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def symmetry_rank(growth: Growth, new: Weights) -> dict[str, dict[str, int]]:
    """Per axis with copies: units, and how many are distinguishable by their weights.

    Two copies whose rows and columns are equal in every tensor get equal gradients for ever and never
    part ways (docs/growth.md). `distinct` < `units` means that. A key/value unit is told apart
    by its own weights or by those of the queries it serves. The tensors are read by rows.
    """
    axes = {axis for axis, mapping in growth.maps.items() if mapping.is_copy.any()}
    digests = _digests(growth, axes | ({"q"} if "kv" in axes else set()), new)
    units = {axis: [d.tobytes() for d in digests[axis]] for axis in axes}
    if "kv" in axes:
        E = growth.new.head_dim
        served = digests["q"].reshape(growth.new.n_kv_heads, -1)
        units["kv"] = [d + served[i // E].tobytes() for i, d in enumerate(units["kv"])]
    return {a: {"units": len(units[a]), "distinct": len(set(units[a]))} for a in sorted(axes)}


def _digests(growth: Growth, axes: set[str], weights: Weights) -> dict[str, NDArray[np.int64]]:
    """64 bits for each unit of some axes: random multiples of its bits in every tensor, summed mod 2^64."""
    digests = {axis: torch.zeros(len(growth.maps[axis]), dtype=torch.int64) for axis in axes}
    rng = np.random.default_rng(0)
    for name, parameter in parameter_table(growth.new).items():
        if not axes & set(parameter.axes):
            continue
        rows = parameter.shape[0]
        columns = parameter.numel // rows
        of_rows, of_columns = _multipliers(rng, rows), _multipliers(rng, columns)
        step = max(1, CHUNK_BYTES // (8 * columns))
        for start in range(0, rows, step):
            chunk = weights.read(name, start, min(rows, start + step))
            stop = start + len(chunk)
            bits = chunk.contiguous().view(_BITS[chunk.element_size()]).view(stop - start, columns).long()
            row_axis, column_axis = parameter.axes[0], parameter.axes[-1]
            if row_axis in axes:
                digests[row_axis][start:stop] += (bits * of_columns).sum(1)
            if column_axis in axes and len(parameter.axes) == 2:
                digests[column_axis] += (bits * of_rows[start:stop, None]).sum(0)
    return {axis: digest.numpy() for axis, digest in digests.items()}


def _multipliers(rng: np.random.Generator, count: int) -> Tensor:
    return torch.from_numpy(rng.integers(-(2**63), 2**63, count, dtype=np.int64))
