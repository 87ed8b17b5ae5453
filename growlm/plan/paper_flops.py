"""The closed form by which papers count a GPT's training FLOPs. No torch.

    F = c T l h^2 (1 + s / (6 h) + V / (16 l h))     c = 96 with full recomputation (Narayanan et al.,
                                                     2104.04473, equation 3)

With c = 72, without recomputation, the head's share is V / (12 l h), for the head is not recomputed; papers
(2309.03852, section 4) keep the 16 and print 84 +- 12 as the range. It counts attention over the whole
square and an MLP of 4 h, whatever a model has.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What the formula knows of a model: tokens, layers, hidden size, context, vocabulary."""

    tokens: float
    layers: int
    hidden: int
    context: int
    vocab: int

    def flops(self, c: float) -> float:
        """The formula as printed, with the factor `c`."""
        return self._with_head(c, 16)

    @property
    def range(self) -> tuple[float, float]:
        """The middle, c = 84, and the half width, c = 12: with or without recomputation."""
        return self.flops(84), self.flops(12)

    @property
    def exact(self) -> float:
        """Without recomputation and with the head's true share."""
        return self._with_head(72, 12)

    def _with_head(self, c: float, divisor: int) -> float:
        L, h = self.layers, self.hidden
        return c * self.tokens * L * h**2 * (1 + self.context / (6 * h) + self.vocab / (divisor * L * h))
