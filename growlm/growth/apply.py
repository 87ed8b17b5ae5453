"""Applying a growth to tensors, by rows: the same code in memory, on a shard, or on a checkpoint stream.

Only the rows a slice comes from are read. With share s of the axis a weight reads (in) and the axes it
writes (out), and G the gradient of the old weight (docs/growth.md; tests check it against autograd):

    weight'     = s_in  * weight         exp_avg'    = s_out   * exp_avg
                                         exp_avg_sq' = s_out^2 * exp_avg_sq
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from growlm.growth.depth import FRESH, LayerSource
from growlm.growth.fresh import add_noise, fill_new, part_rows
from growlm.growth.maps import NEW, AxisMap
from growlm.growth.operators import Growth
from growlm.model.init import init_rows
from growlm.model.parameters import Parameter

Kind = Literal["weight", "exp_avg", "exp_avg_sq"]
ReadRows = Callable[[str, int, int], Tensor]
"""(old parameter name, start, stop) -> those rows."""

FEW = 64  # runs of columns that are copied one by one; more are gathered by index


def grow_rows(
    growth: Growth, parameter: Parameter, kind: Kind, start: int, stop: int, read: ReadRows
) -> Tensor:
    """Rows [start, stop) of a grown tensor, in the dtype that `read` gives.

    `parameter` is the record in the *new* table; `read` reads rows of the old tensor of the same kind.
    Entries that come from nowhere are initialised by the record (weights) or zero (moments).
    """
    layer = LayerSource(0) if parameter.layer is None else growth.layers[parameter.layer]
    shape, dtype = (stop - start, *parameter.shape[1:]), read("embedding.weight", 0, 0).dtype
    if kind != "weight":
        if growth.table.effective_moments == "reset" or not layer.keep_moments:
            return torch.zeros(shape, dtype=dtype)
        moments = torch.empty(shape, dtype=dtype)
        _gather(growth, parameter, kind, start, read, moments)
        return _forget_copies(growth, parameter, start, moments)
    if growth.learned is not None:
        return growth.learned[parameter.name][start:stop].to(dtype)
    if layer.start == "zero" and parameter.writes_residual:
        return torch.zeros(shape, dtype=dtype)
    if layer.start == "identity":
        return _identity(growth, parameter, start, stop).to(dtype)
    if layer.source == FRESH:
        return init_rows(parameter, growth.seed, start, stop).to(dtype)
    rows = torch.empty(shape, dtype=dtype)
    _gather(growth, parameter, kind, start, read, rows)
    if growth.table.operator == "shrink_perturb" and len(shape) > 1:
        fresh = init_rows(parameter, growth.seed, start, stop).to(dtype)
        return rows.mul_(growth.table.shrink).add_(fresh, alpha=growth.table.perturb)
    fill_new(growth, parameter, rows, start)
    if layer.start in ("zero", "gate"):
        part_rows(growth, parameter, rows, start)
    return add_noise(growth, parameter, rows, start)


def _identity(growth: Growth, parameter: Parameter, start: int, stop: int) -> Tensor:
    """Rows of a block that does nothing: gains and biases zero, the square part of matrices identities.

    What is outside the square is fresh: a unit that neither reads nor writes would stay so for ever.
    """
    if len(parameter.shape) == 1:
        return torch.zeros(stop - start)
    rows, side = init_rows(parameter, growth.seed, start, stop), min(parameter.shape)
    rows[: max(0, side - start), :side] = torch.eye(side)[start:stop]
    return rows


def _gather(
    growth: Growth, parameter: Parameter, kind: Kind, start: int, read: ReadRows, out: Tensor
) -> None:
    """Fill `out` in one pass: old entries times their shares at their new places, zero where NEW."""
    name, axis = growth.source_name(parameter), parameter.axes[0]
    mean = growth.pads == "mean" and parameter.writes_residual and kind == "weight" and axis == "d_model"
    rows = growth.maps[axis]
    columns = growth.maps[parameter.axes[1]] if len(parameter.axes) > 1 else None
    by_row, by_column = _factors(growth, parameter, kind)
    stop = start + len(out)
    for a, b in _runs_of(rows.source[start:stop], by_row[start:stop], rows.is_copy[start:stop]):
        place, first = start + a, int(rows.source[start + a])
        if first == NEW and not mean:
            out[a:b] = 0
            continue
        if first == NEW:
            old = _mean_row(name, growth.old.d_model, read)
            old = old.expand(b - a, *old.shape[1:])
        else:
            old = read(_row_source(growth, parameter, name, place), first, first + b - a)
        factor = float(by_row[place])
        if columns is None:
            torch.mul(old, factor, out=out[a:b])
        elif kind == "weight" and rows.block is not None and columns.block is not None:
            wired = columns.block == rows.block[place]
            _place_columns(old, columns, np.where(wired, factor, 0.0), out[a:b])
        else:
            _place_columns(old, columns, by_column * factor, out[a:b])


@lru_cache(maxsize=2)  # every chunk of the rows that hold the mean asks for it
def _mean_row(name: str, rows: int, read: ReadRows) -> Tensor:
    """The mean over the rows of an old tensor, as one row."""
    old = read(name, 0, rows)
    return old.mean(dim=0, keepdim=True, dtype=torch.float64).to(old.dtype)


def _row_source(growth: Growth, parameter: Parameter, name: str, row: int) -> str:
    """The old tensor of a row; under `aki` copies come from the block above, if there is one."""
    projection = parameter.reads is not None or "_proj" in parameter.name
    if not growth.width.next_layer or parameter.layer is None or not projection:
        return name
    if not growth.maps[parameter.axes[0]].is_copy[row]:
        return name
    above = min(growth.layers[parameter.layer].source + 1, growth.old.n_layers - 1)
    return parameter.at_layer(above)


def _factors(
    growth: Growth, parameter: Parameter, kind: Kind
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factor of each row and column: shares of the reading axis (weights), or of the others (moments)."""
    factors = [np.ones(size) for size in (*parameter.shape, 1)[:2]]
    power = 2 if kind == "exp_avg_sq" else 1
    for dim, axis in enumerate(parameter.axes):
        if (axis == growth.reads(parameter)) == (kind == "weight"):
            factors[dim] = growth.maps[axis].share ** power
    constant = growth.row_scale(parameter) if kind == "weight" else growth.gradient_scale(parameter)
    factors[0] = factors[0] * constant**power
    return factors[0], factors[1]


def _place_columns(old: Tensor, columns: AxisMap, scale: NDArray[np.float64], out: Tensor) -> None:
    """Write old rows (n, old) times `scale` to their new columns, zero to NEW ones."""
    runs = _runs_of(columns.source, scale)
    if len(runs) > FEW:
        index = torch.from_numpy(np.maximum(columns.source, 0))
        factor = torch.from_numpy(np.where(columns.is_new, 0.0, scale)).to(old.dtype)
        torch.mul(old.index_select(1, index), factor, out=out)
        return
    for a, b in runs:
        first, factor = int(columns.source[a]), float(scale[a])
        if first == NEW or factor == 0:
            out[:, a:b] = 0
            continue
        piece = old[:, first : first + b - a]
        if factor == 1:
            out[:, a:b].copy_(piece)
        else:
            torch.mul(piece, factor, out=out[:, a:b])


def _runs_of(source: NDArray[np.int64], *same: NDArray[Any]) -> list[tuple[int, int]]:
    """Runs (start, stop) of consecutive old indices, or of NEW ones, along which every `same` is."""
    step = np.where(source[:-1] == NEW, 0, 1)
    breaks = np.diff(source) != step
    for values in same:
        breaks |= values[1:] != values[:-1]
    edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(source)]
    return list(pairwise(edges))


def _forget_copies(growth: Growth, parameter: Parameter, start: int, rows: Tensor) -> Tensor:
    """Under asymmetric moments, zero where the row or the column is a second copy (SPARKLING, 2602.02472)."""
    if growth.table.effective_moments != "asymmetric":
        return rows
    for dim, axis in enumerate(parameter.axes):
        copy = growth.maps[axis].is_copy
        copy = copy[start : start + len(rows)] if dim == 0 else copy
        rows[(slice(None),) * dim + (torch.from_numpy(copy),)] = 0
    return rows


def new_entries(growth: Growth, parameter: Parameter, start: int, stop: int) -> NDArray[np.bool_]:
    """Which entries of rows [start, stop) have no source."""
    new = growth.maps[parameter.axes[0]].is_new[start:stop]
    if len(parameter.axes) == 1:
        return new
    return new[:, None] | growth.maps[parameter.axes[1]].is_new[None, :]


def grow_births(growth: Growth, births: dict[str, list[list[int]]], now: int) -> dict[str, list[list[int]]]:
    """When each unit of each axis, and each block, was born, in optimizer updates.

    Births are [start, stop, update] runs per axis; "layers" likewise. An element's AdamW clock starts
    at the youngest of its row, column and block: torch keeps one step per tensor, which would give new
    parts up to 6.6 x the learning rate (docs/growth.md). What starts without moments is born now.
    """
    moments = growth.table.effective_moments
    grown: dict[str, list[list[int]]] = {}
    for axis, mapping in growth.maps.items():
        old = expand_births(births.get(axis), max(int(mapping.source.max()) + 1, 1))
        young = mapping.is_new | (mapping.is_copy if moments == "asymmetric" else False)
        new = np.where(young, now, old[np.maximum(mapping.source, 0)])
        grown[axis] = _runs(np.full_like(new, now) if moments == "reset" else new)
    old = expand_births(births.get("layers"), growth.old.n_layers)
    grown["layers"] = _runs(np.array([_layer_birth(s, old, now) for s in growth.layers], dtype=np.int64))
    return grown


def _layer_birth(layer: LayerSource, old: NDArray[np.int64], now: int) -> int:
    return int(old[layer.source]) if layer.keep_moments else now


def expand_births(runs: list[list[int]] | None, size: int) -> NDArray[np.int64]:
    """One birth per unit, from runs; 0 where nothing was ever grown."""
    births = np.zeros(size, dtype=np.int64)
    for start, stop, update in runs or []:
        births[start:stop] = update
    return births


def _runs(births: NDArray[np.int64]) -> list[list[int]]:
    edges = [0, *(np.flatnonzero(np.diff(births)) + 1).tolist(), len(births)]
    return [[a, b, int(births[a])] for a, b in pairwise(edges) if births[a]]
