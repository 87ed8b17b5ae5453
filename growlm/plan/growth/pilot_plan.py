"""The small experiment that decides whether to grow: two runs at a hundredth of the budget each. No torch.

One grows as the plan does in its last growth, by the same factor; the other trains the larger size alone,
for as long. What the growth carried over (rho) is read from their records (pilot_reading.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from growlm.plan.growth.request import Request, batch_for, idle_tokens
from growlm.plan.growth.rungs import Rung, rungs_between
from growlm.plan.growth.search import SMALLEST_GROWTH, Belief, Schedule, best_at
from growlm.plan.growth.shapes import fits_into
from growlm.plan.growth.verdict import PAYS, gains_at

SHARES = (0.01, 0.03, 0.1)
"""Of the budget, for each of the two runs: the first that leaves enough for a model."""


@dataclass(frozen=True)
class Pilot:
    """Two runs and what decides: growing pays if rho is at least `needs` (None: at no rho up to 1).

    `asked` is the request that the pilot answers: the same, with its own heads and batch.
    """

    grown: Schedule
    alone: Schedule
    seconds: float
    needs: float | None
    asked: Request


def plan_pilot(schedule: Schedule, asked: Request, rungs: Sequence[Rung]) -> Pilot | None:
    """The pilot of a schedule that grows; None if no size is small enough for it."""
    most, tokens = schedule.rungs[-1].params, sum(schedule.tokens)
    factor = most / schedule.rungs[-2].params
    for share in SHARES:
        small = _smaller(asked, share, tokens)
        sizes = rungs_between(
            1e6, most, small.setting, small.work, vocab_size=small.vocab_size, head_dim=small.head_dim
        )
        pair = _pair(sizes, tokens / most, factor, small.goal.seconds)
        if pair is not None:
            return _runs(pair, schedule, small, needed_rho(asked, rungs))
    return None


def _smaller(asked: Request, share: float, tokens: float) -> Request:
    """The request for a share of the budget: at as many tokens per parameter its root of the tokens."""
    batch = batch_for(asked.setting, asked.work.seq_len, tokens * math.sqrt(share))
    goal = replace(
        asked.goal, seconds=asked.goal.seconds * share, idle_tokens=idle_tokens(batch, asked.work.seq_len)
    )
    work = replace(asked.work, batch_size=batch)
    return replace(asked, goal=goal, work=work, head_dim=min(64, asked.head_dim))


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


def _runs(pair: tuple[Rung, Rung], schedule: Schedule, asked: Request, needs: float | None) -> Pilot:
    """Two runs of the time asked; the first spends the schedule's share of it before its growth."""
    (small, large), seconds = pair, asked.goal.seconds
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
        asked=asked,
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
    return 0.0 if best is None else min(gains_at(best, rungs, asked.goal, rho).values())
