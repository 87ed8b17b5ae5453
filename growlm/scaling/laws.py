"""The law that a plan is made with: loss from parameters and tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Chinchilla:
    """L(N, D) = E + A N^-alpha + B D^-beta, nats per token (Hoffmann et al., 2203.15556, equation 10).

    N: parameters, D: tokens, both counted as the law was fitted.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n: float, d: float) -> float:
        """The loss of a model of `n` parameters after `d` tokens."""
        return self.E + self.A * n**-self.alpha + self.B * d**-self.beta

    def tokens_for(self, n: float, loss: float) -> float:
        """Tokens after which a model of `n` parameters is at `loss`; infinity if it never is."""
        left = loss - self.E - self.A * n**-self.alpha
        return (self.B / left) ** (1 / self.beta) if left > 0 else math.inf

    def optimal(self, flops: float) -> tuple[float, float]:
        """(N, D) of the lowest loss at 6 N D = `flops` (the same, equation 4)."""
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        n = g * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return n, flops / 6 / n


HOFFMANN = Chinchilla(1.69, 406.4, 410.7, 0.34, 0.28)
"""As published (2203.15556, section 3.3)."""

EPOCH = Chinchilla(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
"""The same runs fitted again (Besiroglu et al., 2404.10102)."""
