"""Applying a growth to tensors, by rows: the same code in memory, on a shard, or on a checkpoint stream.

Only the rows a slice comes from are read. With share s of the axis a weight reads (in) and the axes it
writes (out), and G the gradient of the old weight (docs/growth.md; tests check it against autograd):

    weight'     = s_in  * weight         exp_avg'    = s_out   * exp_avg
                                         exp_avg_sq' = s_out^2 * exp_avg_sq
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from growlm.growth.maps import NEW, AxisMap
from growlm.growth.operators import Growth, LayerSource
from growlm.model.init import init_rows, normal_rows
from growlm.model.parameters import Parameter

Kind = Literal["weight", "exp_avg", "exp_avg_sq"]
ReadRows = Callable[[str, int, int], Tensor]
"""(old parameter name, start, stop) -> those rows."""


def grow_rows(
    growth: Growth, parameter: Parameter, kind: Kind, start: int, stop: int, read: ReadRows, seed: int
) -> Tensor:
    """Rows [start, stop) of a grown tensor.

    `parameter` is the record in the *new* table; `read` reads rows of the old tensor of the same kind.
    Entries that come from nowhere are initialised by the record (weights) or zero (moments).
    """
    layer = None if parameter.layer is None else growth.layers[parameter.layer]
    shape = (stop - start, *parameter.shape[1:])
    if kind == "weight":
        if layer is not None and layer.zero_writers and parameter.writes_residual:
            return torch.zeros(shape)
    elif growth.table.moments == "reset" or (layer is not None and not layer.keep_moments):
        return torch.zeros(shape)
    maps = [growth.maps[axis] for axis in parameter.axes]
    old = _gather(maps, parameter.at_layer(layer.source) if layer else parameter.name, start, stop, read)
    old = _scaled(growth, parameter, kind, start, stop, old)
    if kind != "weight":
        return old
    old = _with_fresh(growth, parameter, old, start, stop, seed)
    return _with_noise(growth, parameter, old, start, seed)


def _gather(maps: list[AxisMap], name: str, start: int, stop: int, read: ReadRows) -> Tensor:
    """Old entries at their new places, zero where NEW; consecutive source rows are read in one go."""
    columns = maps[1:]
    width = [len(m) for m in columns]
    pieces = [
        torch.zeros(count, *width) if first == NEW else _columns(read(name, first, first + count), columns)
        for first, count in _runs_of(maps[0].source[start:stop])
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _columns(rows: Tensor, maps: list[AxisMap]) -> Tensor:
    """Rows of an old tensor with their columns, if they have any, at their new places."""
    if not maps or maps[0].is_identity:
        return rows
    pieces = [
        rows.new_zeros(len(rows), count) if first == NEW else rows[:, first : first + count]
        for first, count in _runs_of(maps[0].source)
    ]
    return torch.cat(pieces, dim=1)


def _runs_of(source: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Runs of consecutive old indices, and of NEW ones, as (first, length)."""
    step = np.where(source[:-1] == NEW, 0, 1)
    edges = [0, *(np.flatnonzero(np.diff(source) != step) + 1).tolist(), len(source)]
    return [(int(source[a]), b - a) for a, b in pairwise(edges)]


def _scaled(growth: Growth, parameter: Parameter, kind: Kind, start: int, stop: int, rows: Tensor) -> Tensor:
    """Rows times the shares of the reading axis (weights) or of the others (moments)."""
    power = 2 if kind == "exp_avg_sq" else 1
    for dim, axis in enumerate(parameter.axes):
        share = growth.maps[axis].share if dim else growth.maps[axis].share[start:stop]
        if (axis == parameter.reads) == (kind == "weight") and (share != 1).any():
            factor = torch.from_numpy(share**power).to(rows.dtype)
            rows = rows * (factor[:, None] if rows.dim() > dim + 1 else factor)
    if parameter.role == "gain" and growth.gain_scale != 1:
        rows = rows * (growth.gain_scale if kind == "weight" else growth.gain_scale**-power)
    return rows


def new_entries(growth: Growth, parameter: Parameter, start: int, stop: int) -> NDArray[np.bool_]:
    """Which entries of rows [start, stop) have no source."""
    new = growth.maps[parameter.axes[0]].is_new[start:stop]
    if len(parameter.axes) == 1:
        return new
    return new[:, None] | growth.maps[parameter.axes[1]].is_new[None, :]


def _with_fresh(
    growth: Growth, parameter: Parameter, rows: Tensor, start: int, stop: int, seed: int
) -> Tensor:
    """Rows with their NEW entries initialised; residual writers stay zero under the zero operator."""
    new = new_entries(growth, parameter, start, stop)
    if not new.any():
        return rows
    fresh = init_rows(parameter, seed, start, stop).to(rows.dtype)
    if parameter.role == "gain":
        fresh = fresh * growth.gain_scale
    if growth.zero_new_writers and parameter.writes_residual:
        fresh = fresh * torch.from_numpy(~_zeroed(growth, parameter, start, stop))
    return torch.where(torch.from_numpy(new), fresh, rows)


def _zeroed(growth: Growth, parameter: Parameter, start: int, stop: int) -> NDArray[np.bool_]:
    """Entries of a residual writer that write a new residual unit or read a new hidden unit."""
    zero = np.zeros((stop - start, *parameter.shape[1:]), dtype=bool)
    for dim, axis in enumerate(parameter.axes):
        if axis != "vocab":
            new = growth.maps[axis].is_new
            by_row = new[start:stop].reshape(-1, *(1,) * (len(parameter.axes) - 1))
            zero |= by_row if dim == 0 else new[None, :]
    return zero


def _with_noise(growth: Growth, parameter: Parameter, rows: Tensor, start: int, seed: int) -> Tensor:
    """Clone: noise on the columns that read copies, summing to zero over the copies of a unit."""
    if not growth.table.noise or growth.table.operator != "clone" or parameter.reads is None:
        return rows
    source = growth.maps[parameter.reads].source
    copies = np.bincount(source)
    if copies.max() == 1:
        return rows
    noise = normal_rows(seed, f"{parameter.name}/noise", tuple(rows.shape), start).to(rows.dtype)
    index = torch.from_numpy(source)
    mean = noise.new_zeros(len(rows), len(copies)).index_add_(1, index, noise)
    mean /= torch.from_numpy(copies).to(rows.dtype)
    noise -= mean.index_select(1, index)
    scale = growth.table.noise * rows.square().mean(dim=1, keepdim=True).sqrt()
    return noise.mul_(scale).add_(rows)


def grow_births(growth: Growth, births: dict[str, list[list[int]]], now: int) -> dict[str, list[list[int]]]:
    """When each unit of each axis, and each block, was born, in optimizer updates.

    Births are [start, stop, update] runs per axis; "layers" likewise. An element's AdamW clock starts
    at the youngest of its row, column and block: torch keeps one step per tensor, which would give new
    parts up to 6.6 x the learning rate (docs/growth.md).
    """
    grown: dict[str, list[list[int]]] = {}
    for axis, mapping in growth.maps.items():
        old = expand_births(births.get(axis), max(int(mapping.source.max()) + 1, 1))
        new = np.where(mapping.is_new, now, old[np.maximum(mapping.source, 0)])
        grown[axis] = _runs(np.full_like(new, now) if growth.table.moments == "reset" else new)
    old = expand_births(births.get("layers"), growth.old.n_layers)
    grown["layers"] = _runs(np.array([_layer_birth(s, old, now) for s in growth.layers]))
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
