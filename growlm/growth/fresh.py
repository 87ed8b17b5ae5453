"""What a growth puts where nothing was: fresh values, zeros or means, and paired noise on copies."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from growlm.growth.maps import ranges
from growlm.growth.operators import Growth
from growlm.model.init import init_rows, normal_rows, uniform_rows
from growlm.model.parameters import Parameter

NEW_BLOCKS = 0.1
"""Noise on copies in new blocks under operators that have none of their own."""


def fill_new(growth: Growth, parameter: Parameter, rows: Tensor, start: int) -> None:
    """Give the NEW entries of grown rows their values, in place; they are zero, or the mean, until then."""
    new_rows = growth.maps[parameter.axes[0]].is_new[start : start + len(rows)]
    if not _stays(growth, parameter):
        for a, b in ranges(new_rows):
            rows[a:b] = _fresh_rows(growth, parameter, start + a, start + b)
    if len(parameter.axes) > 1 and growth.maps[parameter.axes[1]].is_new.any():
        _fill_columns(growth, parameter, rows, start, new_rows)


def _stays(growth: Growth, parameter: Parameter) -> bool:
    """Whether NEW rows stay what they are: what writes new residual units, and keys of new coordinates."""
    writes_new_units = parameter.writes_residual and parameter.axes[0] == "d_model"
    new_coordinates = parameter.key and growth.new.head_dim > growth.old.head_dim
    return (writes_new_units and growth.pads != "fresh") or (new_coordinates and growth.pads == "zero")


def _fresh_rows(growth: Growth, parameter: Parameter, start: int, stop: int) -> Tensor:
    rows = init_rows(parameter, growth.seed, start, stop)
    return rows * growth.gain_scale if parameter.role == "gain" else rows


def _fill_columns(
    growth: Growth, parameter: Parameter, rows: Tensor, start: int, new_rows: NDArray[np.bool_]
) -> None:
    """NEW columns: what is written to the residual stream follows `pads`; what is read may be any value."""
    new = growth.maps[parameter.axes[1]].is_new
    if parameter.writes_residual and growth.pads != "fresh":
        of_stream = parameter.axes[1] == "d_model" and growth.pads == "mean"
        value = rows[:, torch.from_numpy(~new)].mean(dim=1, keepdim=True) if of_stream else 0.0
        for a, b in ranges(new):
            rows[:, a:b] = value
        return
    name = f"{parameter.name}/columns"  # a stream of its own: nothing is drawn for entries that are kept
    fresh = normal_rows(growth.seed, name, (len(rows), int(new.sum())), start).mul_(parameter.std)
    kept = torch.from_numpy(~new_rows)
    at = 0
    for a, b in ranges(new):
        piece = fresh[:, at : at + b - a].to(rows.dtype)
        rows[:, a:b] = torch.where(kept[:, None], piece, rows[:, a:b]) if new_rows.any() else piece
        at += b - a


def add_noise(growth: Growth, parameter: Parameter, rows: Tensor, start: int) -> Tensor:
    """Grown rows with noise on the columns that read copies: +n on one, -n on the other of every pair.

    n is `noise` times the mean of the pair times a random number of mean 0 and variance 1, so the signal-to-
    noise ratio is -20 log10(noise) dB (HyperCloning, 2409.12903). For equal halves it cancels even in 16 bit.
    """
    noise, axis = growth.table.effective_noise, growth.reads(parameter)
    if not noise or axis is None or not growth.maps[axis].is_copy.any():
        return rows
    pairs, share = growth.maps[axis].pairs, growth.maps[axis].share
    one, other = (_index(i) for i in pairs)
    shape = (len(rows), len(pairs[0]))
    halves = growth.maps[axis].block is None and bool((share[pairs[0]] == share[pairs[1]]).all())
    drawn = uniform_rows(growth.seed, f"{parameter.name}/noise", shape, start).mul_(noise).to(rows.dtype)
    if rows.element_size() == 2 and halves:
        rows[:, one], rows[:, other] = _cancelling(rows[:, one], rows[:, other], drawn)
    else:
        drawn *= (rows[:, one] + rows[:, other]) / 2
        rows[:, one] += drawn
        rows[:, other] -= drawn
    return rows


def part_rows(growth: Growth, parameter: Parameter, rows: Tensor, start: int) -> None:
    """Make the rows of copies differ, in place, in a block that does nothing yet.

    Elsewhere the noise on what reads them parts copies. Here it is on zeros, or the moments that would
    part them start from zero, so without this they would be locked for ever. Whatever they are is exact.
    """
    if parameter.reads is None or growth.table.force:
        return
    copy = growth.maps[parameter.axes[0]].is_copy[start : start + len(rows)]
    if parameter.axes[0] == "d_model" or not copy.any():
        return
    drawn = uniform_rows(growth.seed, f"{parameter.name}/rows", tuple(rows.shape), start)
    index = torch.from_numpy(np.flatnonzero(copy))
    rows[index] *= 1 + (growth.table.effective_noise or NEW_BLOCKS) * drawn[index].to(rows.dtype)


def _index(index: NDArray[np.int64]) -> slice | Tensor:
    """A slice where the indices are consecutive: a view instead of a copy."""
    consecutive = bool((np.diff(index) == 1).all())
    return slice(int(index[0]), int(index[-1]) + 1) if consecutive else torch.from_numpy(index)


def _cancelling(one: Tensor, other: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """(one + n, other - n) in 16 bit, n = one * noise, with their sum unchanged to the last bit.

    The larger is rounded. It is then a multiple of half the last digit of the sum, and so is what remains
    for the smaller one, which therefore needs no rounding.
    """
    larger = torch.addcmul(one, one, noise.abs())
    smaller = (one + other).sub_(larger)
    a, b, negative = larger.view(torch.int16), smaller.view(torch.int16), noise.view(torch.int16) >> 15
    swapped = (a ^ b).bitwise_and_(
        negative
    )  # where the noise is negative; torch.where takes ten times as long
    return (a ^ swapped).view(one.dtype), (b ^ swapped).view(one.dtype)
