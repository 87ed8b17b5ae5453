"""Axis maps: the one representation of every growth operator.

For each new index of an axis: which old index it comes from (or NEW), and its `share`. A share is the
part of the old unit's downstream weight that this copy carries: readers of the axis are multiplied by
it, and by duality so are the gradients, hence the moments, of everything that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEW = -1


@dataclass(frozen=True)
class AxisMap:
    """`source` (new,): old index or NEW; `share` (new,): sums to 1 over the copies of a unit."""

    source: NDArray[np.int64]
    share: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def is_new(self) -> NDArray[np.bool_]:
        """True where the unit comes from nowhere."""
        return self.source == NEW

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes on this axis."""
        return bool(np.array_equal(self.source, np.arange(len(self.source))))


def keep(old: int, new: int) -> AxisMap:
    """Old units stay where they are; units from `old` on are NEW."""
    source = np.arange(new, dtype=np.int64)
    source[old:] = NEW
    return AxisMap(source, np.ones(new))


def tile(old: int, new: int, split: float = 0.5) -> AxisMap:
    """Units repeated circularly until `new` are there.

    The first copy of a unit that has several carries `split`, the others the rest in equal parts; at
    0.5 all copies are equal. Unequal copies get unequal gradients and part ways (LEMON, 2310.07999).
    """
    source = np.arange(new, dtype=np.int64) % old
    copies = np.bincount(source, minlength=old)[source]
    share = 1.0 / copies
    if split != 0.5:
        first = np.arange(new) < old
        several = copies > 1
        share = np.where(several, np.where(first, split, (1 - split) / np.maximum(copies - 1, 1)), 1.0)
    return AxisMap(source, share)


def grouped_heads(groups: AxisMap, per_group: AxisMap, head_dim: int) -> AxisMap:
    """The map of an axis laid out as (kv group, query head in the group, head_dim)."""
    g, r = len(groups), len(per_group)
    old_r = int(per_group.source.max()) + 1
    source = groups.source[:, None] * old_r + per_group.source[None, :]
    source = np.where(groups.is_new[:, None] | per_group.is_new[None, :], NEW, source)
    share = groups.share[:, None] * per_group.share[None, :]
    unit = np.arange(head_dim)
    wide = np.where(source[..., None] == NEW, NEW, source[..., None] * head_dim + unit)
    return AxisMap(wide.reshape(g * r * head_dim).astype(np.int64), np.repeat(share.reshape(g * r), head_dim))


def ranges(flags: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """Runs of True as (start, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return tuple((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))
