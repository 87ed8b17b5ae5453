"""Whether growth pays, in plain words, and how sure that is. No torch.

The gain of a schedule is the time that the best single size needs for the schedule's losses, over the
schedule's own time. One size is compared with by all laws, the best of them together, since nobody knows
which law holds. The ends of the gain are the least over the laws at the pessimistic end of what a growth
carries over, and the most at the optimistic end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from growlm.plan.growth.rungs import Rung
from growlm.plan.growth.search import Found, Goal, Schedule
from growlm.plan.ticks import count
from growlm.scaling.laws import Chinchilla

PAYS = 1.10
"""The gain from which on growing is worth its trouble: less is within what plans and seeds are wrong by."""

Kind = Literal["grow", "do not grow", "run a pilot first"]


@dataclass(frozen=True)
class Verdict:
    """`gain`: both ends of the schedule that is safe, `hopeful` of the one that is best if all carries over;
    `best` is the one size that makes the most of the budget."""

    kind: Kind
    gain: tuple[float, float]
    hopeful: tuple[float, float]
    best: Rung
    words: str


def seconds_to(loss: float, rung: Rung, goal: Goal, law: Chinchilla) -> float:
    """The time in which a size alone gets to a loss; infinity if it cannot, or is not wanted."""
    tokens = law.tokens_for(rung.params, loss)
    wanted = goal.min_params <= rung.params <= goal.max_params and tokens <= goal.tokens_stock * (1 + 1e-6)
    return tokens / rung.tokens_per_second if wanted else math.inf


def gains_at(schedule: Schedule, rungs: Sequence[Rung], goal: Goal, rho: float) -> dict[str, float]:
    """By law, how many times cheaper a schedule is than the best single size."""
    laws = schedule.belief.laws
    times = [
        [seconds_to(schedule.loss(name, rho), rung, goal, law) for name, law in laws.items()]
        for rung in rungs
    ]
    best = min(times, key=lambda each: sum(map(math.log, each)))
    return {name: seconds / schedule.seconds for name, seconds in zip(laws, best, strict=True)}


def gains(schedule: Schedule, rungs: Sequence[Rung], goal: Goal) -> tuple[float, float]:
    """The least at the pessimistic end, the most at the optimistic end, over the laws."""
    low, high = (gains_at(schedule, rungs, goal, rho).values() for rho in schedule.belief.rho)
    return min(low), max(high)


def verdict(found: Found, rungs: Sequence[Rung], goal: Goal, *, measured: bool) -> Verdict:
    """Of a search; `measured`: what a growth carries over is known from a pilot."""
    safe, hopeful = (gains(schedule, rungs, goal) for schedule in (found.safe, found.hopeful))
    best, grows = found.static.rungs[0], len(found.safe.rungs) > 1
    alone = f"the best single size ({count(best.params)} on this budget)"
    low, high = _ends(found.safe.belief.rho, measured)
    ends = f"{_times(safe[0])} ({low}) to {_times(safe[1])} ({high})"
    bold = f"{_times(hopeful[0])} to {_times(hopeful[1])}"
    if grows and safe[0] >= PAYS:
        kind: Kind = "grow"
        words = f"grow: the schedule below is {ends} as cheap as {alone}."
    elif max(safe[1], hopeful[1]) < PAYS or len(found.hopeful.rungs) == 1:
        kind = "do not grow"
        words = (
            f"do not grow: train a {count(best.params)} model instead. Growing is at best "
            f"{_times(hopeful[1])} ({high}) as cheap."
        )
    else:
        kind = "run a pilot first"
        first = "run a larger pilot" if measured else "run this pilot first"
        words = (
            f"{first}: the schedule below is {ends} as cheap as {alone}; a bolder one would be {bold}."
            if grows
            else f"{first}: no schedule is sure to be as cheap as {alone}; the boldest is {bold} as cheap."
        )
    return Verdict(kind, safe, hopeful, best, words)


def _ends(rho: tuple[float, float], measured: bool) -> tuple[str, str]:
    """What the ends of rho mean."""
    if measured:
        return f"at rho {rho[0]:.2f}, the least by the pilot", f"at rho {rho[1]:.2f}, the most"
    return "if only the loss carries over", "if all tokens of the small models count"


def _times(gain: float) -> str:
    return f"{gain:.2f}x" if math.isfinite(gain) else "any number of times"
