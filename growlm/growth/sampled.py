"""The certificate of models of which not even two blocks fit: probes of every tensor, one after another.

What a probe expects is computed from the axis maps alone, in fp64 and without the code that grew the tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growlm.growth.depth import FRESH
from growlm.growth.maps import NEW
from growlm.growth.operators import Growth
from growlm.growth.weights import Weights
from growlm.model.parameters import Parameter, parameter_table

TOLERANCE = 4  # times the epsilon of the stored dtype, relative to the sum of the absolute terms

Array = NDArray[np.float64]


def certify_sampled(
    growth: Growth, old: Weights, new: Weights, probes: int = 8, seed: int = 0
) -> dict[str, Any]:
    """Probe `probes` random rows of every tensor of the grown model; the certificate as plain JSON types.

    A row that comes from an old one is multiplied with a random input: the old row with x, the new one with x
    where every copy of a unit gets its unit's value and NEW units zero. The products must agree
    (and vectors and lookups entry by entry). Rows that are NEW must be finite, and those of a
    writer that has to start at zero must be zero. `max_error` is relative to the sum of the absolute
    terms; nothing is said about logits.
    """
    rng = np.random.default_rng(seed)
    errors: dict[str, float] = {}
    for name, parameter in parameter_table(growth.new).items():
        rows = np.sort(rng.choice(parameter.shape[0], min(probes, parameter.shape[0]), replace=False))
        errors[name] = max(_probe(growth, parameter, old, new, int(row), rng) for row in rows)
    worst = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    epsilon = max(torch.finfo(old.dtype(name)).eps for name in parameter_table(growth.old))
    return {
        "kind": "sampled",
        "exact": growth.exact,
        "precision": "fp64",
        "tolerance": TOLERANCE * epsilon,
        "max_error": errors[worst],
        "worst": worst,
        "probes": probes,
        "layers": _by_layer(growth, errors),
    }


def _by_layer(growth: Growth, errors: dict[str, float]) -> list[dict[str, Any]]:
    drift = np.zeros(growth.new.n_layers)
    for name, parameter in parameter_table(growth.new).items():
        if parameter.layer is not None:
            drift[parameter.layer] = np.maximum(drift[parameter.layer], errors[name])
    return [
        {"layer": i, "from": layer.source, "drift": float(drift[i])} for i, layer in enumerate(growth.layers)
    ]


def _probe(
    growth: Growth, parameter: Parameter, old: Weights, new: Weights, row: int, rng: np.random.Generator
) -> float:
    """The error of one row of a grown tensor; inf if it holds a NaN."""
    got = new.read(parameter.name, row, row + 1).double().numpy().reshape(-1)
    if not np.isfinite(got).all():
        return float("inf")
    made = _made(growth, parameter, row)
    if made is not None:
        return float(np.abs(got - made).max())
    source = int(growth.maps[parameter.axes[0]].source[row])
    if source == NEW or (parameter.layer is not None and growth.layers[parameter.layer].source == FRESH):
        return _probe_new_row(growth, parameter, got)
    was = old.read(growth.source_name(parameter), source, source + 1).double().numpy().reshape(-1)
    if len(parameter.axes) == 1:
        scale = growth.gain_scale if parameter.role == "gain" and parameter.axes == ("d_model",) else 1.0
        return _relative(got - scale * was, scale * was)
    columns = growth.maps[parameter.axes[1]]
    kept = ~columns.is_new
    hidden_padding = 0.0 if _may_read_new(growth, parameter) else float(np.abs(got[~kept]).max(initial=0.0))
    if growth.reads(parameter) is None:
        moved = _relative(got[kept] - was[columns.source[kept]], was)
    else:
        x = rng.standard_normal(len(was))
        carried = np.zeros(len(was))  # how much of each old unit's weight its copies carry together
        np.add.at(carried, columns.source[kept], _shares(growth, parameter, row)[kept])
        terms = carried * was * x
        moved = abs(float(got[kept] @ x[columns.source[kept]] - terms.sum())) / _size(np.abs(terms).sum())
    return max(moved, hidden_padding)


def _made(growth: Growth, parameter: Parameter, row: int) -> Array | float | None:
    """A row of a new block that starts as zero or as an identity; None if it comes from somewhere else."""
    if parameter.layer is None:
        return None
    start = growth.layers[parameter.layer].start
    if start == "zero" and parameter.writes_residual:
        return 0.0
    if start == "identity":
        is_matrix = len(parameter.shape) == 2
        return np.eye(1, parameter.shape[1], row)[0] if is_matrix else 0.0
    return None


def _probe_new_row(growth: Growth, parameter: Parameter, got: Array) -> float:
    """A NEW row may be anything, but for what it writes into a stream that is padded with zeros."""
    writes = parameter.writes_residual and parameter.axes[0] == "d_model"
    return float(np.abs(got).max()) if writes and growth.pads == "zero" else 0.0


def _may_read_new(growth: Growth, parameter: Parameter) -> bool:
    """Whether the columns of NEW units may be anything: not where writers start at zero."""
    return not parameter.writes_residual or growth.pads == "fresh" or growth.pads == "mean"


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
