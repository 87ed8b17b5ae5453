"""What growing is worth in a recipe that grows: three speed-ups, between two ends, by every law. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from growlm.plan.growth.ladder import Ladder, best_ladder
from growlm.plan.growth.request import LAWS
from growlm.plan.growth.sensitivity import Bar, legs_sensitivity
from growlm.plan.growth.theory import (
    Leg,
    SpeedUps,
    cost_of_legs,
    effective_tokens,
    final_loss,
    speed_ups,
)
from growlm.plan.growth.verdict import PAYS
from growlm.plan.run_plan import RunPlan
from growlm.plan.ticks import count
from growlm.scaling.laws import Chinchilla

Ends = tuple[float, float]
"""At the pessimistic and at the optimistic end."""


FITTED = ((7e7, 5e9), (1.6e10, 5e11))
"""Least and most parameters and tokens of the runs behind both laws (2203.15556, abstract)."""


@dataclass(frozen=True, kw_only=True)
class Economics:
    """By one law. Speed-ups are in time, with every stage's own speed.

    `starts`: effective tokens at the start of each later stage if only the loss carries over. `static_loss`:
    of the last size on all tokens. `optimal_params`, `optimal_loss`: the one size that makes the most of as
    many FLOPs. `bars`: what the speed-up at equal loss depends on. `best`: the cheapest ladder to the same
    loss and last size that ends with as many tokens there.
    """

    law: str
    starts: tuple[float, ...]
    loss: Ends
    speed_ups: tuple[SpeedUps, SpeedUps]
    static_loss: float
    optimal_params: float
    optimal_loss: float
    best: Ladder
    bars: list[Bar]


def economics(
    plan: RunPlan, laws: Mapping[str, Chinchilla] = LAWS, rho: Ends = (0.0, 1.0)
) -> list[Economics]:
    """Of a plan with more than one stage, by every law; empty for one stage, or for too small a run."""
    flops = [Leg(s.parameters, s.tokens, s.cost.flops / s.tokens) for s in plan.stages]
    seconds = [Leg(s.parameters, s.tokens, s.cost.seconds / s.tokens) for s in plan.stages]
    if len(plan.stages) == 1 or too_small(flops[-1].params, sum(leg.tokens for leg in flops)):
        return []
    return [_by_law(name, law, flops, seconds, rho) for name, law in laws.items()]


def _by_law(name: str, law: Chinchilla, flops: list[Leg], seconds: list[Leg], rho: Ends) -> Economics:
    low, high = rho
    last, at = flops[-1], effective_tokens(law, flops, low)
    optimal, tokens = law.optimal(cost_of_legs(flops))
    return Economics(
        law=name,
        starts=tuple(at[1:-1]) if len(at) > 2 else (),
        loss=(final_loss(law, flops, low), final_loss(law, flops, high)),
        speed_ups=(speed_ups(law, seconds, low), speed_ups(law, seconds, high)),
        static_loss=law.loss(last.params, sum(leg.tokens for leg in flops)),
        optimal_params=optimal,
        optimal_loss=law.loss(optimal, tokens),
        best=best_ladder(law, last.params, at[-1], len(flops), last_share=min(0.9, last.tokens / at[-1])),
        bars=legs_sensitivity(seconds, {name: law}, rho),
    )


def economics_words(found: list[Economics], last_size: float) -> list[str]:
    """The verdict on a schedule, for who needs the last size and for who needs the loss alone."""
    size = count(last_size)
    low = min(e.speed_ups[0].equal_loss for e in found)
    high = max(e.speed_ups[1].equal_loss for e in found)
    said = []
    if low >= PAYS:
        said.append(
            f"if {size} is needed: grow; {low:.2f} to {high:.2f} times as cheap as {size} from the start"
        )
    elif high < PAYS:
        said.append(f"do not grow: {size} from the start costs no more, whatever carries over")
    else:
        said.append(
            f"if {size} is needed: run a pilot first; growing is {low:.2f} to {high:.2f} times as cheap"
        )
    if all(e.loss[0] > e.optimal_loss for e in found):
        sizes = " or ".join(f"{count(e.optimal_params)} ({e.law})" for e in found)
        surely = all(e.loss[1] > e.optimal_loss for e in found)
        said.append(
            f"if only the loss counts: do not grow, train a model of {sizes} instead"
            + ("" if surely else ": it is better unless more than the loss carries over, which a pilot tells")
        )
    return said


def too_small(params: float, tokens: float) -> bool:
    """Whether the laws say nothing of such a run: under a tenth of the smallest that they were fitted to."""
    return params < FITTED[0][0] / 10 or tokens < FITTED[0][1] / 10


def fitted_range(params: float, tokens: float) -> str:
    """A warning where the laws are far from their data; empty within."""
    low, high = FITTED
    if low[0] <= params <= 4 * high[0] and tokens >= low[1] / 4:
        return ""
    return (
        f"{count(params)} parameters on {count(tokens)} tokens is outside what the laws were fitted to, "
        f"{count(low[0])} to {count(high[0])} on {count(low[1])} to {count(high[1])}: trust ratios "
        "more than losses"
    )
