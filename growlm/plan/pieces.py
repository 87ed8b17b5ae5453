"""Which part of every tensor a rank holds: always a rectangle. No torch.

Tensor parallelism splits the axes in `SPLIT_AXES`, a pipeline stage holds some layers, and data-parallel
sharding splits rows. So a rank's part of a parameter is rows [a, b) of columns [c, d), and everything that
must agree about it (initialisation, optimizer clocks, checkpoints, growth) works on that rectangle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from growlm.model.parameters import Parameter


@dataclass(frozen=True, order=True)
class Piece:
    """A rectangle of a tensor: [start, stop) along each dimension."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Piece:
        """All of a tensor."""
        return cls(tuple((0, size) for size in shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Its own shape."""
        return tuple(stop - start for start, stop in self.ranges)

    @property
    def start(self) -> tuple[int, ...]:
        """Its first corner."""
        return tuple(start for start, _ in self.ranges)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """For indexing the whole tensor."""
        return tuple(slice(start, stop) for start, stop in self.ranges)

    def part(self, dim: int, index: int, parts: int) -> Piece:
        """The `index`-th of `parts` pieces along `dim`, as torch.chunk cuts: equal but for the last ones."""
        start, stop = self.ranges[dim]
        size = -(-(stop - start) // parts)
        cut = min(start + index * size, stop), min(start + (index + 1) * size, stop)
        return Piece((*self.ranges[:dim], cut, *self.ranges[dim + 1 :]))


def piece_of(parameter: Parameter, *, tp: tuple[int, int], shard: tuple[int, int]) -> Piece:
    """The rectangle of a parameter at (rank, size) of tensor parallelism and of data-parallel sharding."""
    piece = Piece.whole(parameter.shape)
    if parameter.tp_dim is not None:
        piece = piece.part(parameter.tp_dim, *tp)
    return piece.part(0, *shard)
