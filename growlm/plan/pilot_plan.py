"""The small experiment that decides whether to grow: two runs at a hundredth of the budget each. No torch.

One grows as the plan does in its last growth, by the same factor; the other trains the larger size alone,
for as long. What the growth carried over (rho) is read from their records (pilot_reading.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from growlm.plan.growth_request import Request
from growlm.plan.growth_search import SMALLEST_GROWTH, Belief, Schedule, best_at
from growlm.plan.rungs import Rung, rungs_between
from growlm.plan.shapes import fits_into
from growlm.plan.verdict import PAYS, gain

SHARES = (0.01, 0.03, 0.1)
"""Of the budget, for each of the two runs: the first that leaves enough for a model."""


@dataclass(frozen=True)
class Pilot:
    """Two runs and what decides: growing pays if rho is at least `needs` (None: at no rho up to 1)."""

    grown: Schedule
    alone: Schedule
    seconds: float
    needs: float | None


def plan_pilot(schedule: Schedule, asked: Request, rungs: Sequence[Rung]) -> Pilot | None:
    """The pilot of a schedule that grows; None if no size is small enough for it."""
    ratio = sum(schedule.tokens) / schedule.rungs[-1].params
    factor = schedule.rungs[-1].params / schedule.rungs[-2].params
    sizes = rungs_between(
        1e6, schedule.rungs[-1].params, asked.setting, asked.work, vocab_size=asked.vocab_size,
        head_dim=min(64, asked.head_dim),
    )  # fmt: skip
    for share in SHARES:
        seconds = asked.goal.seconds * share
        pair = _pair(sizes, ratio, factor, seconds)
        if pair is not None:
            return _runs(pair, schedule, asked, seconds, needed_rho(asked, rungs))
    return None


def _pair(sizes: Sequence[Rung], ratio: float, factor: float, seconds: float) -> tuple[Rung, Rung] | None:
    """The largest size that gets as many tokens for each parameter, and one to grow from."""
    fits = [rung for rung in sizes if ratio * rung.params <= seconds * rung.tokens_per_second]
    large = max(fits, key=lambda rung: rung.params, default=None)
    if large is None:
        return None
    smaller = [
        rung
        for rung in sizes
        if rung.params * SMALLEST_GROWTH <= large.params and fits_into(rung.config, large.config)
    ]
    small = min(smaller, key=lambda rung: abs(rung.params * factor - large.params), default=None)
    return None if small is None else (small, large)


def _runs(
    pair: tuple[Rung, Rung], schedule: Schedule, asked: Request, seconds: float, needs: float | None
) -> Pilot:
    """Two runs of so many seconds; the first spends the schedule's share of them before its growth."""
    small, large = pair
    times = [n / r.tokens_per_second for n, r in zip(schedule.tokens, schedule.rungs, strict=True)]
    first = seconds * sum(times[:-1]) / sum(times)
    tokens = first * small.tokens_per_second, (seconds - first) * large.tokens_per_second
    whole = (seconds * large.tokens_per_second,)
    idle, belief = asked.goal.idle_tokens, asked.belief
    return Pilot(
        grown=Schedule((small, large), tokens, seconds, idle, belief),
        alone=Schedule((large,), whole, seconds, idle, belief),
        seconds=2 * seconds,
        needs=needs,
    )


def needed_rho(asked: Request, rungs: Sequence[Rung]) -> float | None:
    """The least share of the way from pessimistic to optimistic at which growing pays by every law."""
    low, high = 0.0, 1.0
    if _least_gain(asked, rungs, high) < PAYS:
        return None
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (low, middle) if _least_gain(asked, rungs, middle) >= PAYS else (middle, high)
    return high


def _least_gain(asked: Request, rungs: Sequence[Rung], rho: float) -> float:
    belief = Belief(asked.belief.laws, (rho, rho))
    best = best_at(rungs, asked.goal, belief)
    return 0.0 if best is None else min(gain(best, rungs, asked.goal, law, rho) for law in belief.laws)


def pilot_request(asked: Request, rung: Rung) -> Request:
    """The request with the pilot's heads, for its recipes."""
    return replace(asked, head_dim=rung.config.head_dim)
