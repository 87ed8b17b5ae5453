"""Everything that a search says: schedules, verdict, speed-ups, what it depends on, more and less money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from growlm.errors import RecipeError
from growlm.plan.growth.economics import fitted_range, too_small
from growlm.plan.growth.pilot_plan import Pilot, plan_pilot
from growlm.plan.growth.request import Request, with_seconds
from growlm.plan.growth.rungs import Rung
from growlm.plan.growth.search import Found, Schedule, search
from growlm.plan.growth.sensitivity import Bar, sensitivity
from growlm.plan.growth.theory import SpeedUps, speed_ups, stacking_tokens
from growlm.plan.growth.verdict import Verdict, seconds_to, verdict
from growlm.plan.ticks import count

BUDGETS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Multiples of the budget that are shown."""

OVER_TRAINED = 100.0
"""Tokens per parameter of the first stage from which on it is noted."""

RELIABLE_GROWTH = 2.0
"""The factor up to which growth is found to help most reliably (2605.13405)."""


@dataclass(frozen=True)
class Point:
    """What a multiple of the budget buys."""

    budget: float
    static: Schedule
    schedule: Schedule


LAW_ERROR = 0.011
"""Mean error of a Chinchilla law fitted to its authors' runs below 1e20 FLOPs on those above 3e20."""


@dataclass(frozen=True)
class Answer:
    """`schedule` is what to train by the verdict; `free` the best single size whatever its size.

    `speed_ups`: by law, at the pessimistic and the optimistic end, in time.
    """

    asked: Request
    rungs: Sequence[Rung]
    found: Found
    verdict: Verdict
    schedule: Schedule
    free: Schedule
    speed_ups: dict[str, tuple[SpeedUps, SpeedUps]]
    bars: list[Bar]
    points: list[Point]
    pilot: Pilot | None
    warnings: list[str]


def loss_interval(schedule: Schedule) -> tuple[float, float]:
    """From the best law and end to the worst, and the laws' own error to either side."""
    losses = [loss for pair in schedule.losses.values() for loss in pair]
    return min(losses) * (1 - LAW_ERROR), max(losses) * (1 + LAW_ERROR)


def answer(asked: Request, *, measured: bool = False) -> Answer:
    """The search for a request, and everything around it. Raises RecipeError if nothing fits."""
    rungs = asked.rungs()
    found = search(rungs, asked.goal, asked.belief)
    size, tokens = found.static.rungs[0].params, found.static.tokens[0]
    if too_small(size, tokens):
        raise RecipeError(
            f"no plan for so small a run: {count(size)} parameters on {count(tokens)} tokens",
            where=asked.limit,
            why="the loss laws were fitted to models and tokens ten times as large and more",
            fix="more time or GPUs; or write a recipe by hand: growlm init, growlm plan RECIPE",
        )
    said = verdict(found, rungs, asked.goal, measured=measured)
    schedule = found.static if said.kind == "do not grow" else found.safe
    alone = replace(asked.goal, min_params=0.0, max_params=float("inf"), max_stages=1)
    free = search(rungs, alone, asked.belief).static
    grown = schedule if len(schedule.rungs) > 1 else found.hopeful
    pilot = None
    if said.kind == "run a pilot first":
        pilot = plan_pilot(grown, asked, rungs)
        said = said if pilot else _without_pilot(said)
    return Answer(
        asked=asked,
        rungs=rungs,
        found=found,
        verdict=said,
        schedule=schedule,
        free=free,
        speed_ups={law: _speed_ups(schedule, rungs, asked, law) for law in asked.belief.laws},
        bars=sensitivity(schedule, rungs, asked),
        points=_points(asked, rungs),
        pilot=pilot,
        warnings=_notes(schedule, found, free, asked, measured),
    )


def _without_pilot(said: Verdict) -> Verdict:
    """For budgets so small that the run itself is a pilot."""
    words = said.words.partition(": ")[2]
    return replace(said, words=f"too small a budget for a pilot: try both. {words[:1].upper()}{words[1:]}")


def _speed_ups(
    schedule: Schedule, rungs: Sequence[Rung], asked: Request, law: str
) -> tuple[SpeedUps, SpeedUps]:
    """In time; the compute-optimal size is the best of the rungs, of any size."""
    known, found = asked.belief.laws[law], []
    anything = replace(asked.goal, min_params=0.0, max_params=float("inf"), tokens_stock=float("inf"))
    for rho in asked.belief.rho:
        best = min(seconds_to(schedule.loss(law, rho), rung, anything, known) for rung in rungs)
        ups = speed_ups(known, schedule.legs(), rho)
        busy = sum(leg.tokens * leg.per_token for leg in schedule.legs()) / schedule.seconds
        found.append(SpeedUps(ups.equal_tokens * busy, ups.equal_loss * busy, best / schedule.seconds))
    return found[0], found[1]


def _points(asked: Request, rungs: Sequence[Rung]) -> list[Point]:
    points = []
    for budget in BUDGETS:
        goal = with_seconds(asked, asked.goal.seconds * budget).goal
        found = search(rungs, goal, asked.belief)
        points.append(Point(budget, found.static, found.safe))
    return points


def _notes(schedule: Schedule, found: Found, free: Schedule, asked: Request, measured: bool) -> list[str]:
    """What the reader should know before believing the rest."""
    said = []
    size, tokens = schedule.rungs[-1].params, sum(schedule.tokens)
    if measured:
        said.append("rho was measured at the pilot's sizes; that it holds at these is an assumption")
    if len(schedule.rungs) > 1:
        said += _growth_notes(schedule, found.static.rungs[0], asked.belief.rho[0] if measured else None)
    if schedule.seconds < 0.99 * asked.goal.seconds:
        said.append(
            f"the tokens end before the budget: {schedule.seconds / asked.goal.seconds:.0%} of it is used; "
            "what reading them again gives is not in the laws"
        )
    if free.rungs[0].params < asked.goal.min_params:
        best = max(pessimistic for pessimistic, _ in free.losses.values())
        worst = max(pessimistic for pessimistic, _ in schedule.losses.values())
        said.append(
            f"if the size is not needed: {count(free.rungs[0].params)} alone on the same budget is predicted "
            f"at {best:.3f}, this plan at {worst:.3f} or lower"
        )
    if fitted_range(size, tokens):
        said.append(fitted_range(size, tokens))
    if tokens < 5 * size:
        said.append(f"only {tokens / size:.1f} tokens per parameter: the laws were fitted to 5 and more")
    return said


def _growth_notes(schedule: Schedule, static: Rung, rho: float | None) -> Iterator[str]:
    """Of a schedule that grows; `rho` is the least by a pilot."""
    least = "even if only the loss carries over" if rho is None else f"even at rho {rho:.2f}"
    yield (
        "this schedule is the best of those that all laws predict to be no worse than "
        f"{count(static.params)} alone {least}"
    )
    pairs = [(a.params, b.params) for a, b in pairwise(schedule.rungs)]
    far = [f"{count(a)} to {count(b)} ({b / a:.3g}x)" for a, b in pairs if b > RELIABLE_GROWTH * a]
    if far:
        yield f"{', '.join(far)}: 2605.13405 finds growth reliable up to a factor of {RELIABLE_GROWTH:g}"
    each = zip(schedule.tokens, schedule.rungs, strict=True)
    flops, last = sum(n * rung.flops_per_token for n, rung in each), schedule.rungs[-1].params
    yield (
        f"for comparison, G_stack (2405.15319) stacks by 4 to {count(last)} after "
        f"{count(stacking_tokens(last, flops))} tokens"
    )
    first = schedule.rungs[0].params
    if schedule.tokens[0] > OVER_TRAINED * first:
        yield (
            f"{count(first)} trains on {schedule.tokens[0] / first:.0f} tokens per parameter: what an "
            "over-trained model passes on saturates (2510.06548), which is not in rho"
        )
