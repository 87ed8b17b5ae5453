"""Sums in a fixed binary tree, so that their bits do not depend on the number of ranks.

The micro-batches of a step are the leaves, in the order of the data: micro-batch m of rank r is leaf
m * ranks + r. Ranks sum pairwise by recursive doubling, and what comes out is a subtree that one rank alone
would have summed in the same order. Floating-point addition is commutative, so both of a pair get the same.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class TreeSum:
    """Adds tensors pairwise as they come: ((0 + 1) + (2 + 3)) + ..., holding one for each level."""

    def __init__(self) -> None:
        self._levels: list[tuple[int, Tensor]] = []

    def add(self, value: Tensor) -> None:
        """The next leaf, or the next subtree of the same size as those before; it is kept and changed."""
        level = 0
        while self._levels and self._levels[-1][0] == level:
            value = self._levels.pop()[1].add_(value)
            level += 1
        self._levels.append((level, value))

    def total(self) -> Tensor:
        """The sum of all."""
        _, total = self._levels.pop()
        while self._levels:
            total = self._levels.pop()[1].add_(total)
        return total


def sum_over_ranks(value: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The tree sum of `value` over a power of two of ranks, the same bits on all of them, in place."""
    other = torch.empty_like(value)
    distance = 1
    while distance < group.size():
        peer = dist.get_global_rank(group, group.rank() ^ distance)
        ops = [dist.P2POp(dist.isend, value, peer, group), dist.P2POp(dist.irecv, other, peer, group)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        value.add_(other)
        distance *= 2
    return value
