"""Axis maps: the one representation of every growth operator.

For each new index of an axis: which old index it comes from (or NEW), and its `share`. A share is the
part of the old unit's downstream weight that this copy carries: readers of the axis are multiplied by
it, and by duality so are the gradients, hence the moments, of everything that writes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

NEW = -1


@dataclass(frozen=True, eq=False)
class AxisMap:
    """`source` (new,): old index or NEW; `share` (new,): sums to 1 over the copies of a unit.

    `block` (new,): copies of different blocks are not wired to each other (staged training); None if all are.
    """

    source: NDArray[np.int64]
    share: NDArray[np.float64]
    block: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def is_new(self) -> NDArray[np.bool_]:
        """True where the unit comes from nowhere."""
        return self.source == NEW

    @cached_property
    def is_copy(self) -> NDArray[np.bool_]:
        """True for the second and later units of one source."""
        first = np.zeros(len(self.source), dtype=bool)
        first[np.unique(self.source, return_index=True)[1]] = True
        return ~first & ~self.is_new

    @cached_property
    def is_identity(self) -> bool:
        """Whether nothing changes on this axis."""
        return bool(np.array_equal(self.source, np.arange(len(self.source))))

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Disjoint pairs of copies of the same unit, as two index arrays; an odd copy stays alone."""
        order = np.argsort(self.source, kind="stable")
        order = order[self.source[order] != NEW]
        source = self.source[order]
        start = np.searchsorted(source, source)  # where the copies of this unit begin
        rank = np.arange(len(order)) - start
        left = np.flatnonzero((rank[:-1] % 2 == 0) & (source[:-1] == source[1:]))
        left = left[np.argsort(order[left], kind="stable")]
        return order[left], order[left + 1]


def keep(old: int, new: int) -> AxisMap:
    """Old units stay where they are; units from `old` on are NEW."""
    source = np.arange(new, dtype=np.int64)
    source[old:] = NEW
    return AxisMap(source, np.ones(new))


def tile(old: int, new: int, split: float = 0.5) -> AxisMap:
    """Units repeated circularly until `new` are there.

    Of two copies the first carries `split` and the second the rest; of more, the shares go evenly from
    one end to the other. Unequal copies get unequal gradients and part ways (LEMON, 2310.07999).
    """
    index = np.arange(new, dtype=np.int64)
    source = index % old
    copies = np.bincount(source, minlength=old)[source]
    return AxisMap(source, _shares(index // old, copies, split))


def whole_copies(old: int, new: int, split: float = 0.5) -> AxisMap:
    """As many copies of every unit as fit; the rest is NEW: the average expansion of LEMON (2310.07999)."""
    fit = new // old * old
    tiled = tile(old, fit, split)
    rest = new - fit
    return AxisMap(np.append(tiled.source, np.full(rest, NEW)), np.append(tiled.share, np.ones(rest)))


def resample(old: int, new: int, rng: np.random.Generator) -> AxisMap:
    """Old units, then copies of units drawn at random (Net2Net, 1511.05641; bert2BERT, 2110.07143)."""
    source = np.append(np.arange(old), rng.integers(0, old, new - old)).astype(np.int64)
    return AxisMap(source, 1.0 / np.bincount(source, minlength=old)[source])


def blocks(old: int, new: int) -> AxisMap:
    """Whole copies side by side, wired only within themselves (staged training, 2203.06211)."""
    tiled = tile(old, new)
    return replace(tiled, block=np.arange(new, dtype=np.int64) // old) if new > old else tiled


def norm_preserving(old: int, new: int) -> AxisMap:
    """Copies whose readers keep the root mean square of what they compute (SPARKLING, 2602.02472).

    With c = (new - old) / old, the factor is 1 / sqrt(1 + 3c) up to c = 1 and 1 / (1 + c) beyond.
    """
    c = (new - old) / old
    factor = 1 / math.sqrt(1 + 3 * c) if c <= 1 else 1 / (1 + c)
    return replace(tile(old, new), share=np.full(new, factor))


def nested(outer: AxisMap, inner: AxisMap) -> AxisMap:
    """The map of an axis laid out as (outer, inner)."""
    size = int(inner.source.max()) + 1
    source = np.where(
        outer.is_new[:, None] | inner.is_new[None, :],
        NEW,
        outer.source[:, None] * size + inner.source[None, :],
    )
    share = outer.share[:, None] * inner.share[None, :]
    block = None
    if outer.block is not None:
        block = np.repeat(outer.block, len(inner))
    elif inner.block is not None:
        block = np.tile(inner.block, len(outer))
    return AxisMap(source.reshape(-1), share.reshape(-1), block)


def halves(pairs: AxisMap) -> AxisMap:
    """The map of a head's coordinates from that of its rotary pairs (i, i + half)."""
    old = int(pairs.source.max()) + 1
    second = np.where(pairs.is_new, NEW, pairs.source + old)
    return AxisMap(np.append(pairs.source, second), np.tile(pairs.share, 2))


def ranges(flags: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """Runs of True as (start, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return tuple((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _shares(copy: NDArray[np.int64], copies: NDArray[np.int64], split: float) -> NDArray[np.float64]:
    """Shares of copy number `copy` of `copies`: from 2 split / copies, evenly, to 2 (1 - split) / copies."""
    place = copy / np.maximum(copies - 1, 1)
    uneven = 2 * (split + (1 - 2 * split) * place) / copies
    return np.where(copies > 1, uneven, 1.0)
