"""Whole examples in units: a signal is never cut off from the text it is about.

Examples of a stream are put into units in their order, as many as fit in each; the rest of a unit is padding.
Like everything that decides what a step draws, it is a function of the stream and the unit's size.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from growlm.data.manifest import MARK


@dataclass(frozen=True)
class Packing:
    """The units of a stream of examples."""

    start: np.ndarray
    """(units,) first token of each."""
    tokens: np.ndarray
    """(units,) how many tokens it has, at most one more than a unit has inputs."""
    learnt: np.ndarray
    """(units,) how many of its targets are marked."""
    examples: int
    """All units together hold so many."""
    too_long: int
    """Examples that fit in no unit, and are left out."""


def pack(blocks: Iterable[np.ndarray], eos_id: int, unit: int) -> Packing:
    """Pack a stream of stored ids, given in blocks (n,) uint32, whose examples each end with `eos_id`.

    A unit of `unit` inputs is read with one token more, its last target.
    """
    bounds, marks = _scan(blocks, eos_id)  # of example i: bounds i and i + 1
    examples, example, too_long = len(bounds) - 1, 0, 0
    found = array("q")  # first and past the last example of each unit
    while example < examples:
        behind = bisect_right(bounds, bounds[example] + unit + 1, lo=example) - 1
        if behind == example:
            too_long += 1
        else:
            found.extend((example, behind))
        example = max(behind, example + 1)
    first, behind_last = np.frombuffer(found, np.int64).reshape(-1, 2).T
    at, before = np.frombuffer(bounds, np.int64), np.concatenate(([0], np.cumsum(marks)))
    start, tokens = at[first], at[behind_last] - at[first]
    return Packing(start, tokens, before[behind_last] - before[first], examples - too_long, too_long)


def _scan(blocks: Iterable[np.ndarray], eos_id: int) -> tuple[array[int], np.ndarray]:
    """Where the examples begin, and where the last ends; and how many tokens of each are marked."""
    bounds = array("q", [0])
    marks: list[np.ndarray] = []
    position = carried = 0
    for block in blocks:
        inside = np.flatnonzero((block & np.uint32(MARK - 1)) == eos_id) + 1
        counted = np.concatenate(([0], np.cumsum(block >= MARK)))
        at = counted[inside]
        found = np.diff(at, prepend=0)
        if len(found):
            found[0] += carried
            carried = 0
        carried += int(counted[-1] - (at[-1] if len(at) else 0))
        bounds.frombytes((inside + position).astype(np.int64).tobytes())
        marks.append(found)
        position += len(block)
    return bounds, np.concatenate(marks) if marks else np.zeros(0, np.int64)
