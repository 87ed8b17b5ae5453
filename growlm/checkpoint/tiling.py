"""Pieces of a tensor: rectangles that cut its first two dimensions, and whether they make it up exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

Range = tuple[int, int]
Placed = tuple[Sequence[int], Sequence[int]]
"""A rectangle: its first corner, and its shape."""


def rows_and_columns(start: Sequence[int], shape: Sequence[int]) -> tuple[Range, Range]:
    """The ranges [start, stop) along dimensions 0 and 1; [0, 1) along one that there is not."""
    ranges = [(first, first + size) for first, size in zip(start[:2], shape[:2], strict=True)]
    rows, columns = (*ranges, (0, 1), (0, 1))[:2]
    return rows, columns


def overlap(a: Range, b: Range) -> Range:
    """What two ranges share; empty or reversed if nothing."""
    return max(a[0], b[0]), min(a[1], b[1])


def tiling_problem(shape: Sequence[int], pieces: Sequence[Placed]) -> str:
    """Why the pieces do not cover a tensor of this shape, every element once; empty if they do.

    An empty tensor has one piece; no piece of another is empty.
    """
    for start, size in pieces:
        if not len(start) == len(size) == len(shape):
            return f"a piece of shape {list(size)} at {list(start)} has other dimensions than {list(shape)}"
        if any(first + n > whole for first, n, whole in zip(start, size, shape, strict=True)):
            return f"a piece of shape {list(size)} at {list(start)} is outside of {list(shape)}"
        if list(size[2:]) != list(shape[2:]):
            return f"a piece of shape {list(size)} cuts another dimension than the first two of {list(shape)}"
        if math.prod(shape) and not math.prod(size):
            return "one of its pieces is empty"
    if problem := _overlapping(pieces):
        return problem
    found, wanted = sum(math.prod(size) for _, size in pieces), math.prod(shape)
    if found != wanted or not pieces:
        return f"its pieces hold {found:,} of {wanted:,} elements"
    return ""


def _overlapping(pieces: Sequence[Placed]) -> str:
    """Where two rectangles share elements: one sweep over the rows, against those that are still open."""
    boxes = sorted(rows_and_columns(start, size) for start, size in pieces)
    still: list[tuple[Range, Range]] = []
    for rows, columns in boxes:
        still = [box for box in still if box[0][1] > rows[0]]
        for _, others in still:
            first, end = overlap(columns, others)
            if first < end:
                return f"two of its pieces overlap at row {rows[0]}, column {first}"
        still.append((rows, columns))
    return ""
