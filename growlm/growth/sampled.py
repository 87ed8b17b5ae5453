"""The certificate of models of which not even two blocks fit: probes of every tensor, one after another.

What a probe expects is computed from the axis maps alone, in fp64 and without the code that grew the tensor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from growlm.growth.depth import FRESH
from growlm.growth.operators import Growth
from growlm.growth.weights import Weights
from growlm.model.parameters import Parameter, parameter_table

TOLERANCE = 4  # times the epsilon of the stored dtype, relative to the sum of the absolute terms

CHUNK_BYTES = 4 << 20

Array = NDArray[np.float64]


class Expected(NamedTuple):
    """What an old row says, and how large the terms are that its entries are made of."""

    values: Array
    sizes: Array


def certify_sampled(
    growth: Growth, old: Weights, new: Weights, probes: int = 8, seed: int = 0
) -> dict[str, Any]:
    """Probe `probes` random rows of every tensor of the grown model; the certificate as plain JSON types.

    A row that comes from an old one is multiplied with a random input: the old row with x, the new one with x
    where every copy of a unit gets its unit's value and NEW units zero. The products must agree
    (and vectors and lookups entry by entry). What writes NEW units of the stream must write zeros or the
    mean, as the operator says; for the mean an old writer is read whole, by rows. Other NEW entries
    must be finite. `max_error` is relative to the sum of the absolute terms; it is None where weights are
    not those of the axis maps. Nothing is said about logits.
    """
    rng = np.random.default_rng(seed)
    errors: dict[str, float] = {}
    for name, parameter in parameter_table(growth.new).items():
        rows = np.sort(rng.choice(parameter.shape[0], min(probes, parameter.shape[0]), replace=False))
        errors[name] = _probe_rows(growth, parameter, old, new, rows, rng)
    worst = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    epsilon = max(torch.finfo(old.dtype(name)).eps for name in parameter_table(growth.old))
    said = _follows_maps(growth) or not np.isfinite(errors[worst])
    return {
        "kind": "sampled",
        "exact": growth.exact,
        "precision": "fp64",
        "tolerance": TOLERANCE * epsilon,
        "max_error": errors[worst] if said else None,
        "worst": worst if said else None,
        "probes": probes,
        "layers": _by_layer(growth, errors, said),
    }


def _follows_maps(growth: Growth) -> bool:
    """Whether weights are what the maps say: not learned, not shrunk, not taken from the block above."""
    from_above = growth.width.next_layer and any(m.is_copy.any() for m in growth.maps.values())
    return growth.table.operator not in ("shrink_perturb", "ligo") and not from_above


def _by_layer(growth: Growth, errors: dict[str, float], said: bool) -> list[dict[str, Any]]:
    drift = np.zeros(growth.new.n_layers)
    for name, parameter in parameter_table(growth.new).items():
        if parameter.layer is not None:
            drift[parameter.layer] = np.maximum(drift[parameter.layer], errors[name])
    return [
        {"layer": i, "from": layer.source, "drift": float(drift[i]) if said else None}
        for i, layer in enumerate(growth.layers)
    ]


def _probe_rows(
    growth: Growth,
    parameter: Parameter,
    old: Weights,
    new: Weights,
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> float:
    """The largest error of some rows of a grown tensor; inf if one holds a NaN."""
    is_new = growth.maps[parameter.axes[0]].is_new[rows]
    writes_mean = growth.pads == "mean" and parameter.writes_residual and parameter.axes[0] == "d_model"
    mean = (
        _mean_row(old, growth.source_name(parameter), growth.old.d_model, growth.row_scale(parameter))
        if writes_mean and is_new.any() and not _is_made(growth, parameter)
        else None
    )
    worst = 0.0
    for row, new_row in zip(rows.tolist(), is_new.tolist(), strict=True):
        got = new.read(parameter.name, row, row + 1).double().numpy().reshape(-1)
        if not np.isfinite(got).all():
            return float("inf")
        if _follows_maps(growth):
            expected = mean if new_row else None
            worst = float(np.maximum(worst, _probe(growth, parameter, old, row, got, expected, rng)))
    return worst


def _probe(
    growth: Growth,
    parameter: Parameter,
    old: Weights,
    row: int,
    got: Array,
    expected: Expected | None,
    rng: np.random.Generator,
) -> float:
    """The error of one row; `expected` is the mean that a NEW one holds, None for any other."""
    if _is_made(growth, parameter):
        return _made_error(growth, parameter, row, got)
    is_new = growth.maps[parameter.axes[0]].is_new[row]
    if is_new and _new_row_is_zero(growth, parameter):
        return float(np.abs(got).max())
    if not is_new and not _is_parted(growth, parameter, row):
        expected = _old_row(growth, parameter, old, row)
    if len(parameter.axes) == 1:
        return 0.0 if expected is None else _relative(got - expected.values, expected.sizes)
    kept = ~growth.maps[parameter.axes[1]].is_new
    padding = _padding_error(growth, parameter, got, kept, expected)
    if expected is None:
        return padding
    return max(_kept_error(growth, parameter, row, got, expected, rng), padding)


def _is_made(growth: Growth, parameter: Parameter) -> bool:
    """Whether a tensor of a new block comes from no old one: zero, an identity, or fresh."""
    if parameter.layer is None:
        return False
    layer = growth.layers[parameter.layer]
    zero = layer.start == "zero" and parameter.writes_residual
    return zero or layer.start == "identity" or layer.source == FRESH


def _made_error(growth: Growth, parameter: Parameter, row: int, got: Array) -> float:
    """The error of a row that comes from no old one."""
    start = growth.layers[parameter.layer or 0].start
    if start == "identity" and len(parameter.axes) == 2:
        side = min(parameter.shape)  # outside the square part it may be anything
        return float(np.abs(got[:side] - np.eye(side)[row]).max()) if row < side else 0.0
    is_zero = start == "identity" or (start == "zero" and parameter.writes_residual)
    return float(np.abs(got).max()) if is_zero else 0.0


def _old_row(growth: Growth, parameter: Parameter, old: Weights, row: int) -> Expected:
    """The old row that a new one comes from, with the constant of its parameter."""
    source = int(growth.maps[parameter.axes[0]].source[row])
    was = old.read(growth.source_name(parameter), source, source + 1).double().numpy().reshape(-1)
    was = was * growth.row_scale(parameter)
    return Expected(was, np.abs(was))


def _mean_row(old: Weights, name: str, rows: int, scale: float) -> Expected:
    """`scale` times the mean over the rows of an old tensor, read in pieces."""
    columns = old.read(name, 0, 1).numel()
    step = max(1, CHUNK_BYTES // (8 * columns))
    total, squares = np.zeros(columns), np.zeros(columns)
    for start in range(0, rows, step):
        chunk = old.read(name, start, min(rows, start + step)).double().numpy().reshape(-1, columns) * scale
        total += chunk.sum(0)
        squares += (chunk**2).sum(0)
    return Expected(total / rows, _mean_size(total / rows, squares, rows))


def _mean_size(mean: Array, squares: Array, count: int) -> Array:
    """What the error of a mean is relative to: itself, and four times the size of a mean of random signs.

    The second is for the rounding of the sum on its way, in the dtype of its terms, where it almost cancels.
    """
    return np.abs(mean) + 4 * np.sqrt(squares) / count


def _new_row_is_zero(growth: Growth, parameter: Parameter) -> bool:
    """Whether NEW rows must be zero, for an exact growth.

    So are, where the stream is padded with zeros, its writers and the keys of new coordinates; and, wherever
    a norm must give nothing in NEW units, its biases.
    """
    of_stream = parameter.axes[0] == "d_model"
    norm_bias = parameter.role == "bias" and of_stream and not parameter.writes_residual
    writer = parameter.writes_residual and of_stream
    new_coordinate = parameter.key and growth.new.head_dim > growth.old.head_dim
    if growth.pads == "zero":
        return writer or new_coordinate or norm_bias
    return growth.pads == "mean" and norm_bias


def _is_parted(growth: Growth, parameter: Parameter, row: int) -> bool:
    """Whether a row is a copy in a block that does nothing yet: those are noisy, so that they can part."""
    silent = parameter.layer is not None and growth.layers[parameter.layer].start in ("zero", "gate")
    hidden = parameter.reads is not None and parameter.axes[0] != "d_model"
    is_copy = bool(growth.maps[parameter.axes[0]].is_copy[row])
    return silent and hidden and is_copy and not growth.table.force


def _padding_error(
    growth: Growth, parameter: Parameter, got: Array, kept: NDArray[np.bool_], expected: Expected | None
) -> float:
    """The error of NEW columns: those of what writes the stream are zero or, for lookups, the row's mean."""
    if not parameter.writes_residual or growth.pads == "fresh" or kept.all():
        return 0.0
    if growth.pads == "zero" or parameter.axes[1] != "d_model":
        return float(np.abs(got[~kept]).max())
    values = got[kept] if expected is None else expected.values
    mean = values.mean(keepdims=True)
    return _relative(got[~kept] - mean, _mean_size(mean, (values**2).sum(keepdims=True), len(values)))


def _kept_error(
    growth: Growth, parameter: Parameter, row: int, got: Array, expected: Expected, rng: np.random.Generator
) -> float:
    """The error of the columns that come from old ones: of a product, or entry by entry for lookups."""
    columns = growth.maps[parameter.axes[1]]
    kept, source = ~columns.is_new, columns.source[~columns.is_new]
    if growth.reads(parameter) is None:
        return _relative(got[kept] - expected.values[source], expected.sizes)
    x = rng.standard_normal(len(expected.values))
    carried = np.zeros(len(x))  # how much of each old unit's weight its copies carry together
    np.add.at(carried, source, _shares(growth, parameter, row)[kept])
    product = float((carried * expected.values * x).sum())
    size = float(np.abs(carried * expected.sizes * x).sum())
    return abs(float(got[kept] @ x[source]) - product) / _size(size)


def _shares(growth: Growth, parameter: Parameter, row: int) -> Array:
    """The part of a unit's weight in each column of a row: its share, or all of it within one's own block."""
    rows, columns = (growth.maps[axis] for axis in parameter.axes)
    if rows.block is not None and columns.block is not None:
        return (columns.block == rows.block[row]).astype(np.float64)
    return columns.share


def _relative(difference: Array, values: Array) -> float:
    return float(np.abs(difference).max()) / _size(np.abs(values).max())


def _size(value: float) -> float:
    return float(value) or 1.0
