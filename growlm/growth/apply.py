"""Applying a growth to tensors, by rows: the same code in memory, on a shard, or on a checkpoint stream.

Only the rows a slice comes from are read. With share s of the axis a weight reads (in) and the axes it
writes (out), and G the gradient of the old weight (growth.md 3.6, checked in tests against autograd):

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
from growlm.model.init import init_rows, row_generator
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
    old = old * _scale(growth, parameter, kind, start, stop).to(old.dtype)
    if kind != "weight":
        return old
    old = _with_fresh(growth, parameter, old, start, stop, seed)
    return _with_noise(growth, parameter, old, start, stop, seed)


def _gather(maps: list[AxisMap], name: str, start: int, stop: int, read: ReadRows) -> Tensor:
    """Old entries at their new places, zero where NEW; consecutive source rows are read in one go."""
    rows = maps[0].source[start:stop]
    cut = np.flatnonzero((np.diff(rows) != 1) | (rows[:-1] == NEW)) + 1
    pieces: list[Tensor] = []
    for run in np.split(rows, cut):
        pieces.append(
            _columns(read(name, int(run[0]), int(run[-1]) + 1), maps) if run[0] != NEW else torch.empty(0)
        )
    whole = next((p for p in pieces if p.numel()), torch.zeros(1))
    out = torch.zeros((stop - start, *(len(m) for m in maps[1:])), dtype=whole.dtype)
    for run, at, piece in zip(np.split(rows, cut), [0, *cut.tolist()], pieces, strict=True):
        if run[0] != NEW:
            out[at : at + len(run)] = piece
    return out


def _columns(rows: Tensor, maps: list[AxisMap]) -> Tensor:
    """Rows of an old matrix with their columns at their new places."""
    if rows.dim() == 1 or maps[1].is_identity:
        return rows
    source = torch.from_numpy(np.maximum(maps[1].source, 0))
    out = rows.index_select(1, source)
    out[:, torch.from_numpy(maps[1].is_new)] = 0
    return out


def _scale(growth: Growth, parameter: Parameter, kind: Kind, start: int, stop: int) -> Tensor:
    """Factor of every entry: shares of the reading axis for weights, of the others for moments."""
    factor = np.ones(1)
    for dim, axis in enumerate(parameter.axes):
        if (axis == parameter.reads) == (kind == "weight"):
            share = growth.maps[axis].share
            factor = factor * (share[start:stop, None] if dim == 0 and len(parameter.axes) == 2 else share)
            if dim == 0 and len(parameter.axes) == 1:
                factor = factor[start:stop]
    if parameter.role == "gain":
        factor = factor * (growth.gain_scale if kind == "weight" else 1 / growth.gain_scale)
    return torch.from_numpy(factor**2 if kind == "exp_avg_sq" else factor)


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


def _with_noise(
    growth: Growth, parameter: Parameter, rows: Tensor, start: int, stop: int, seed: int
) -> Tensor:
    """Clone: noise on the columns that read copies, summing to zero over the copies of a unit."""
    if not growth.table.noise or growth.table.operator != "clone" or parameter.reads is None:
        return rows
    source = growth.maps[parameter.reads].source
    copies = np.bincount(source)
    if copies.max() == 1:
        return rows
    scale = growth.table.noise * rows.square().mean(dim=1, keepdim=True).sqrt()
    noise = np.empty(rows.shape)
    for k, row in enumerate(range(start, stop)):
        e = row_generator(seed, parameter.name + "/noise", row).standard_normal(len(source))
        mean = np.bincount(source, weights=e) / copies
        noise[k] = e - mean[source]
    return rows + scale * torch.from_numpy(noise).to(rows.dtype)


def grow_births(growth: Growth, births: dict[str, list[list[int]]], now: int) -> dict[str, list[list[int]]]:
    """When each unit of each axis, and each block, was born, in optimizer updates.

    Births are [start, stop, update] runs per axis; "layers" likewise. An element's AdamW clock starts
    at the youngest of its row, column and block: torch keeps one step per tensor, which would give new
    parts up to 6.6 x the learning rate (growth.md, finding 3).
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
