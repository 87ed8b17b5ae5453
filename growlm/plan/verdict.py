"""Whether growth pays, in plain words, and how sure that is. No torch.

The gain of a schedule is the time that the best single size needs for the schedule's loss, over the
schedule's own time. Its ends are the least over the laws if only the loss carries over, and the most if all
tokens do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from growlm.plan.growth_search import Found, Goal, Schedule
from growlm.plan.rungs import Rung
from growlm.plan.ticks import count
from growlm.scaling.laws import Chinchilla

PAYS = 1.10
"""The gain from which on growing is worth its trouble: less is within what plans and seeds are wrong by."""

Kind = Literal["grow", "do not grow", "run a pilot first"]


@dataclass(frozen=True)
class Verdict:
    """`gain` at the pessimistic and the optimistic end; `best` is the one size to compare with."""

    kind: Kind
    gain: tuple[float, float]
    best: Rung
    words: str


def seconds_to(loss: float, rungs: Sequence[Rung], goal: Goal, law: Chinchilla) -> float:
    """The time in which the best single size that is wanted gets to a loss; infinity if none can."""
    times = [math.inf]
    for rung in rungs:
        tokens = law.tokens_for(rung.params, loss)
        if goal.min_params <= rung.params <= goal.max_params and tokens <= goal.tokens_stock * (1 + 1e-6):
            times.append(tokens / rung.tokens_per_second)
    return min(times)


def gain(schedule: Schedule, rungs: Sequence[Rung], goal: Goal, law: str, rho: float) -> float:
    """How many times cheaper a schedule is than the best single size at the schedule's loss."""
    known = schedule.belief.laws[law]
    return seconds_to(schedule.loss(law, rho), rungs, goal, known) / schedule.seconds


def gains(schedule: Schedule, rungs: Sequence[Rung], goal: Goal) -> tuple[float, float]:
    """The least at the pessimistic end, the most at the optimistic end, over the laws."""
    low, high = schedule.belief.rho
    laws = schedule.belief.laws
    return (
        min(gain(schedule, rungs, goal, law, low) for law in laws),
        max(gain(schedule, rungs, goal, law, high) for law in laws),
    )


def verdict(found: Found, rungs: Sequence[Rung], goal: Goal, *, measured: bool) -> Verdict:
    """Of a search; `measured`: what a growth carries over is known from a pilot."""
    low = gains(found.safe, rungs, goal)[0]
    high = gains(found.hopeful, rungs, goal)[1]
    best = found.static.rungs[0]
    size = count(best.params)
    if len(found.safe.rungs) > 1 and low >= PAYS:
        kind: Kind = "grow"
        words = (
            f"grow: even if only the loss carries over, it gets to its loss {_times(low)} as cheaply as the "
            f"best model of one size ({size})."
        )
    elif high < PAYS or len(found.hopeful.rungs) == 1:
        kind = "do not grow"
        words = (
            f"do not grow: train a {size} model instead. Even if all that the small models learned carries "
            f"over, growing is only {_times(high)} as cheap."
        )
    else:
        kind = "run a pilot first"
        pilot = "run a larger pilot" if measured else "run this pilot first"
        words = (
            f"{pilot}: growing is {_times(low)} (only the loss carries over) to {_times(high)} (all that the "
            f"small models learned does) as cheap as a {size} model alone."
        )
    return Verdict(kind, (low, high), best, words)


def _times(gain: float) -> str:
    return f"{gain:.2f}x" if math.isfinite(gain) else "any number of times"
