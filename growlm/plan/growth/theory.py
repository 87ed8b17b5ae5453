"""What a growth is worth by a loss law: effective tokens, final loss and the three speed-ups. No torch.

A run is legs: so many tokens at one size, then at a larger one. After a growth to N2 at loss l1, how many
tokens of training is the grown model worth? Two bounds:

    pessimistic, rho = 0   path independence: what counts is the loss. D0 with L(N2, D0) = l1
    optimistic, rho = 1    token transfer: the grown model is worth all effective tokens before, D0 = D1

In between D0 = pessimistic^(1 - rho) * optimistic^rho. Neither is a theorem: some growth has been published
as worth more than its tokens (7B stacked from 10B tokens reaches 300B tokens' loss at 194B, 2405.15319),
other work finds that gains end at a factor of 2 and 20 tokens per parameter (2605.13405). A pilot says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from growlm.scaling.laws import Chinchilla


@dataclass(frozen=True)
class Leg:
    """A part of a run at one size.

    `params` as the law counts them. `token_cost` in FLOPs or in seconds, 0 means 6 N FLOPs. `idle_tokens` are
    paid for but teach nothing: the warm-up after a growth.
    """

    params: float
    tokens: float
    token_cost: float = 0.0
    idle_tokens: float = 0.0

    @property
    def per_token(self) -> float:
        """What a token costs."""
        return self.token_cost or 6.0 * self.params


Legs = Sequence[Leg]


@dataclass(frozen=True)
class SpeedUps:
    """The cost of another way over that of the legs: above 1 growth is cheaper.

    `equal_tokens`: the last size, trained on as many tokens. `equal_loss`: the last size, trained to the same
    loss. `compute_optimal`: one size, the one that gets to the same loss most cheaply.
    """

    equal_tokens: float
    equal_loss: float
    compute_optimal: float


def worth(law: Chinchilla, n1: float, d1: float, n2: float, rho: float) -> float:
    """Effective tokens of a model of `n2` parameters grown from one of `n1` after `d1` effective tokens."""
    if n2 == n1 or d1 <= 0:
        return d1
    pessimistic = law.tokens_for(n2, law.loss(n1, d1))
    return math.exp((1 - rho) * math.log(pessimistic) + rho * math.log(d1))


def effective_tokens(law: Chinchilla, legs: Legs, rho: float) -> list[float]:
    """Effective tokens at the start of every leg, and at the end of the last: one number more than legs."""
    at, size = [0.0], legs[0].params
    for leg in legs:
        start = worth(law, size, at[-1], leg.params, rho)
        at[-1] = start
        at.append(start + max(0.0, leg.tokens - leg.idle_tokens))
        size = leg.params
    return at


def final_loss(law: Chinchilla, legs: Legs, rho: float) -> float:
    """The loss at the end of the last leg."""
    return law.loss(legs[-1].params, effective_tokens(law, legs, rho)[-1])


def cost_of_legs(legs: Legs) -> float:
    """What all legs cost, in the unit of their tokens' cost."""
    return sum(leg.tokens * leg.per_token for leg in legs)


def optimal_flops(law: Chinchilla, loss: float) -> float:
    """The fewest FLOPs, 6 N D, with which a model of one size reaches `loss`; infinity below E.

    At the optimum A N^-alpha is beta / (alpha + beta) of the loss above E (Hoffmann et al., 2203.15556,
    equation 4).
    """
    above = loss - law.E
    if above <= 0:
        return math.inf
    share = law.beta / (law.alpha + law.beta)
    n = (law.A / (share * above)) ** (1 / law.alpha)
    return 6 * n * (law.B / ((1 - share) * above)) ** (1 / law.beta)


def speed_ups(law: Chinchilla, legs: Legs, rho: float) -> SpeedUps:
    """The three speed-ups of a run under a law and a transfer assumption."""
    cost, last = cost_of_legs(legs), legs[-1]
    at_end = effective_tokens(law, legs, rho)[-1]
    flops = optimal_flops(law, law.loss(last.params, at_end))
    return SpeedUps(
        equal_tokens=last.per_token * sum(leg.tokens for leg in legs) / cost,
        equal_loss=last.per_token * at_end / cost,
        compute_optimal=flops * (last.per_token / (6.0 * last.params)) / cost,
    )


def ideal_saving(law: Chinchilla) -> float:
    """FLOPs of the compute-optimal model of one size over those of ideal continuous growth, at equal loss.

    By path independence a model at loss l grows along A N^-alpha = phi (l - E), phi = 1 / (1 + alpha +
    alpha / beta), which makes N dD least at every l; the integral over l is a power of l - E, as the static
    optimum's FLOPs are, with psi = beta / (alpha + beta) for phi. So their ratio is a constant. The
    derivation is ours; tests/plan/growth/test_theory.py checks it against brute force.
    """
    a, b = law.alpha, law.beta
    phi, psi = 1 / (1 + a + a / b), b / (a + b)
    growth = phi ** (1 / a) * (1 - phi) ** (1 + 1 / b)
    return b * (1 / a + 1 / b) * growth / (psi ** (1 / a) * (1 - psi) ** (1 / b))


def stacking_tokens(params: float, flops: float) -> float:
    """Tokens of a small model before it is stacked to `params`, by G_stack (2405.15319, equation 5).

    log10 d = 0.88 log10 N + 163.27 / log10 C - 5.74, with C = 6 N D of the whole run, for growth by 4.
    """
    return 10 ** (0.88 * math.log10(params) + 163.27 / math.log10(flops) - 5.74)


def shape_saving(power: float, first_share: float = 0.0) -> float:
    """Share of FLOPs saved at equal tokens when size goes from `first_share` of the last to all of it.

    It goes as tokens^power: 1 is linear and saves half from 0, more is superlinear, less sublinear
    (2309.03852, figure 1).
    """
    return (1 - first_share) * (1 - 1 / (power + 1))
