"""The closed form by which papers count a GPT's training FLOPs. No torch.

    F = c T L h^2 (1 + s / (6 h) + V / (16 L h))     c = 96 with full recomputation (Narayanan et al.,
                                                     2104.04473, equation 3)

of T tokens, L layers, width h, context s, vocabulary V. Without recomputation c = 72, and the head's share is
V / (12 L h), for the head is not recomputed; 2309.03852 keeps the 16, and prints 84 +- 12 as the range. It
counts attention over the whole square and an MLP of 4 h, whatever a model has.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What the formula knows of a model and its training."""

    tokens: float
    layers: int
    hidden: int
    context: int
    vocab: int

    def flops(self, c: float, head: int = 16) -> float:
        """The formula with the factor `c` and V / (`head` L h); (72, 12) is exact without recomputation."""
        h, s = self.hidden, self.context
        # multiplied out, so that a model without layers has its head
        blocks = self.layers * h**2 * (1 + s / (6 * h))
        return c * self.tokens * (blocks + self.vocab * h / head)

    @property
    def range(self) -> tuple[float, float]:
        """The middle, c = 84, and the half width, c = 12: with or without recomputation."""
        return self.flops(84), self.flops(12)
