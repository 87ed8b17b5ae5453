"""Which copies can part ways: units that are equal in every tensor get equal gradients for ever."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from growlm.growth.depth import FRESH
from growlm.growth.operators import Growth
from growlm.growth.weights import Weights
from growlm.model.parameters import Parameter, parameter_table

CHUNK_BYTES = 4 << 20
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def symmetry_rank(growth: Growth, new: Weights) -> dict[str, dict[str, int]]:
    """Per axis with copies: units, and how many are distinguishable by their weights.

    Two copies whose rows and columns are equal in every tensor get equal gradients for ever and never
    part ways (docs/growth.md). `distinct` < `units` means that. Units of the residual stream are in
    all tensors, any other unit in those of one block: of these the block with the fewest distinct
    units counts. A key/value unit is told apart by its own weights or by those of the queries it
    serves. The tensors are read by rows.
    """
    copied = {axis for axis, mapping in growth.maps.items() if mapping.is_copy.any()}
    digests = _digests(growth, copied | ({"q"} if "kv" in copied else set()), new)
    rank: dict[str, dict[str, int]] = {}
    for (axis, layer), of_units in digests.items():
        if axis not in copied or (layer is not None and growth.layers[layer].source == FRESH):
            continue  # the units of a fresh block are no copies
        units = [d.tobytes() for d in of_units]
        if axis == "kv":
            served = digests["q", layer].reshape(growth.new.n_kv_heads, -1)
            units = [d + served[i // growth.new.head_dim].tobytes() for i, d in enumerate(units)]
        fewest = min(len(set(units)), rank.get(axis, {}).get("distinct", len(units)))
        rank[axis] = {"units": len(units), "distinct": fewest}
    return dict(sorted(rank.items()))


Digests = dict[tuple[str, int | None], Tensor]
"""Of the units of an axis, in a block (None: in the residual stream, of all tensors)."""


def _digests(
    growth: Growth, axes: set[str], weights: Weights
) -> dict[tuple[str, int | None], NDArray[np.int64]]:
    """64 bits for each unit: random multiples of its bits in every tensor, summed mod 2^64."""
    digests: Digests = {}
    rng = np.random.default_rng(0)
    for name, parameter in parameter_table(growth.new).items():
        mine = [
            _digest_of(digests, axis, parameter, size) if axis in axes else None
            for axis, size in zip(parameter.axes, parameter.shape, strict=True)
        ]
        if all(digest is None for digest in mine):
            continue
        rows = parameter.shape[0]
        columns = parameter.numel // rows
        of_rows, of_columns = _multipliers(rng, rows), _multipliers(rng, columns)
        step = max(1, CHUNK_BYTES // (8 * columns))
        for start in range(0, rows, step):
            chunk = weights.read(name, start, min(rows, start + step))
            stop = start + len(chunk)
            bits = chunk.contiguous().view(_BITS[chunk.element_size()]).view(stop - start, columns).long()
            if mine[0] is not None:
                mine[0][start:stop] += (bits * of_columns).sum(1)
            if len(mine) == 2 and mine[1] is not None:
                mine[1] += (bits * of_rows[start:stop, None]).sum(0)
    return {key: digest.numpy() for key, digest in digests.items()}


def _digest_of(digests: Digests, axis: str, parameter: Parameter, size: int) -> Tensor:
    """Where the units of one axis of a tensor are summed up."""
    key = axis, None if axis == "d_model" else parameter.layer
    return digests.setdefault(key, torch.zeros(size, dtype=torch.int64))


def _multipliers(rng: np.random.Generator, count: int) -> Tensor:
    return torch.from_numpy(rng.integers(-(2**63), 2**63, count, dtype=np.int64))
