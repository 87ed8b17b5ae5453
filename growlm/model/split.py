"""Where tensor parallelism touches the forward pass. A whole model is split over one rank: nothing to do.

growlm/parallel/tensor.py has the split over several ranks, with the same methods and collectives in them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from growlm.model.loss import cross_entropy, head_logits


class Split:
    """One rank that holds every head, every hidden unit and the whole vocabulary."""

    rank = 0
    size = 1

    def enter(self, x: Tensor) -> Tensor:
        """From the residual stream, (B, T / size, D) under sequence parallelism, to layers that are split."""
        return x

    def leave(self, y: Tensor) -> Tensor:
        """The sum over ranks of what split layers give, back in the layout of the residual stream."""
        return y

    def lookup(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Rows of an embedding, its vocabulary split: (B, T) -> the residual stream."""
        return F.embedding(tokens, weight)

    def positions(self, table: Tensor) -> Tensor:
        """The rows of a table (T, D) that belong to this rank's part of the residual stream."""
        return table

    def cross_entropy(
        self,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        *,
        mult: float,
        bias: Tensor | None,
        factors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean loss of targets (N) from hidden (N, D) and a head (V / size, D), and each token's, (N).

        `bias` is split as the head is; `factors` (N) are on each token's loss.
        """
        return cross_entropy(hidden, weight, targets, mult=mult, bias=bias, factors=factors)

    def logits_of(self, hidden: Tensor, weight: Tensor, ids: Tensor, mult: float) -> Tensor:
        """Logits (N, C) of C tokens alone, with gradient; hidden (N, D), a head (V / size, D)."""
        return head_logits(hidden, weight[ids], mult, None)

    def logits(self, hidden: Tensor, weight: Tensor, mult: float, bias: Tensor | None) -> Tensor:
        """Logits (..., V) of the whole vocabulary."""
        return head_logits(hidden, weight, mult, bias)


WHOLE = Split()
