"""The growth schedule for a budget of time: every ladder of sizes x every split of the time. No torch.

A schedule is up to `max_stages` sizes, each with its fastest layout, and shares of the time between them.
All are enumerated at once as arrays (ladder, split, stage), the best refined. Two things are wanted of one,
by every law of the belief:

    safe      as good as the best single size if only the loss carries over (the pessimistic end), and of
              those the best on the average of both ends: growing then costs nothing but the trouble
    hopeful   the best at the optimistic end
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product

import numpy as np

from growlm.errors import RecipeError
from growlm.plan.growth.rungs import Rung
from growlm.plan.growth.shapes import fits_into
from growlm.plan.growth.theory import Leg, final_loss
from growlm.scaling.laws import Chinchilla

Array = np.ndarray

DISK = 1e9
"""Bytes per second of a growth, assumed: reading and writing weights and moments (12 bytes a parameter)."""

RESTART = 600.0
"""Seconds to certify a growth and start the next stage, assumed."""

PARTS = {1: 1, 2: 32, 3: 16}
"""In how many equal parts the time is cut, by the number of stages, before refinement."""

REFINED = 12
"""How many ladders of each number of stages have their splits refined."""

SMALLEST_GROWTH = 1.2


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is wanted and what there is. `seconds` of all GPUs; `idle_tokens` after every growth.

    `last_share`: of all tokens, at least so much is for the last size: 2511.04981 grows at 80 % of the steps.
    """

    seconds: float
    min_params: float = 0.0
    max_params: float = math.inf
    tokens_stock: float = math.inf
    max_stages: int = 3
    max_growth: float = 4.0
    last_share: float = 0.2
    idle_tokens: float = 0.0


@dataclass(frozen=True)
class Belief:
    """The laws that may hold, by name, and the ends of what a growth carries over (growth_theory.py)."""

    laws: Mapping[str, Chinchilla]
    rho: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Schedule:
    """Rungs with their tokens. `seconds` with the growths; `idle_tokens` after each."""

    rungs: tuple[Rung, ...]
    tokens: tuple[float, ...]
    seconds: float
    idle_tokens: float
    belief: Belief

    def legs(self) -> list[Leg]:
        """For the theory, in seconds."""
        idle = [0.0, *[self.idle_tokens] * (len(self.rungs) - 1)]
        return [
            Leg(rung.params, tokens, 1 / rung.tokens_per_second, lost)
            for rung, tokens, lost in zip(self.rungs, self.tokens, idle, strict=True)
        ]

    def loss(self, law: str, rho: float) -> float:
        """The final loss by a law of the belief."""
        return final_loss(self.belief.laws[law], self.legs(), rho)

    @cached_property
    def losses(self) -> dict[str, tuple[float, float]]:
        """By law, the final loss at the pessimistic and the optimistic end."""
        low, high = self.belief.rho
        return {law: (self.loss(law, low), self.loss(law, high)) for law in self.belief.laws}


@dataclass(frozen=True)
class Found:
    """What a search found; `target` is the static run of the last size of `safe`, on the same budget."""

    static: Schedule
    target: Schedule
    safe: Schedule
    hopeful: Schedule


Wish = Callable[[Array, Array], Array]
"""From losses (laws, ladders, splits) at both ends to what is to be small, (ladders, splits)."""


def search(rungs: Sequence[Rung], goal: Goal, belief: Belief) -> Found:
    """The best schedules over these sizes. Raises RecipeError if none of them can be the last one."""
    tried = _tried(rungs, goal, belief)
    static = _best(tried[:1], belief, lambda low, _: low.mean(axis=0))
    if static is None:
        raise RecipeError(
            "no single size fits the budget",
            where="the budget",
            fix="a smaller --min-params, more time or more tokens",
        )
    limits = np.array([pessimistic for pessimistic, _ in static.losses.values()])[:, None, None]

    def safe(low: Array, high: Array) -> Array:
        worse = (low > limits * (1 + 1e-9)).any(axis=0)
        return np.where(worse, np.inf, (low + high).mean(axis=0))

    best = _best(tried, belief, safe) or static
    hopeful = _best(tried, belief, _optimistic) or static
    alone, low, high = tried[0]
    same = [k for k, ladder in enumerate(alone.ladders) if rungs[ladder[0]] is best.rungs[-1]]
    target = _best([(alone.some(same), low[:, same], high[:, same])], belief, lambda low, _: low.mean(axis=0))
    return Found(static, target or static, best, hopeful)


def best_at(rungs: Sequence[Rung], goal: Goal, belief: Belief) -> Schedule | None:
    """The best schedule at the optimistic end alone; None if nothing fits."""
    return _best(_tried(rungs, goal, belief), belief, _optimistic)


def _optimistic(_: Array, high: Array) -> Array:
    return high.mean(axis=0)


def _tried(rungs: Sequence[Rung], goal: Goal, belief: Belief) -> list[tuple[_Grid, Array, Array]]:
    """Every grid with its losses; the first is of single sizes."""
    grids = [_Grid.of(rungs, goal, stages) for stages in range(1, goal.max_stages + 1)]
    return [(grid, *grid.losses(belief)) for grid in grids if grid.ladders.size]


@dataclass(frozen=True)
class _Grid:
    """Schedules of one number of stages: `ladders` (M, k) of indices of rungs, `shares` (M or 1, P, k)."""

    rungs: Sequence[Rung]
    goal: Goal
    ladders: Array
    shares: Array

    @classmethod
    def of(cls, rungs: Sequence[Rung], goal: Goal, stages: int) -> _Grid:
        """Every ladder of so many sizes that ends large enough, and splits of the time in equal parts."""
        parts = PARTS[stages]
        cuts = combinations(range(1, parts), stages - 1)
        shares = np.array([np.diff([0, *cut, parts]) for cut in cuts]) / parts
        ladders = np.array(list(_ladders(rungs, goal, stages)), dtype=int).reshape(-1, stages)
        return cls(rungs, goal, ladders, shares[None])

    def some(self, which: Sequence[int]) -> _Grid:
        """Some of the ladders."""
        shares = self.shares if len(self.shares) == 1 else self.shares[which]
        return replace(self, ladders=self.ladders[which], shares=shares)

    def around(self, shares: Array, width: float) -> _Grid:
        """The same ladders, with splits around one, (M, k), of each."""
        offsets = np.array(list(product(np.linspace(-width, width, 7), repeat=shares.shape[1] - 1)))
        first = np.clip(shares[:, None, :-1] + offsets, 1e-3, None)
        last = 1 - first.sum(axis=-1, keepdims=True)
        return replace(self, shares=np.concatenate([first, np.where(last > 0, last, np.nan)], axis=-1))

    def column(self, name: str) -> Array:
        """A number of every rung of every ladder, (M, 1, k)."""
        return np.array([float(getattr(rung, name)) for rung in self.rungs])[self.ladders][:, None]

    def overhead(self) -> Array:
        """Seconds of the growths of every ladder, (M, 1)."""
        params = self.column("params")
        moved = 12 * (params[..., :-1] + 2 * params[..., 1:]).sum(axis=-1)
        return moved / DISK + RESTART * (params.shape[-1] - 1)

    def tokens(self) -> Array:
        """Tokens of every stage, (M, P, k), NaN where a schedule is not allowed; less than the budget buys
        where there are no more."""
        goal, stages = self.goal, self.ladders.shape[1]
        time = goal.seconds - self.overhead()
        tokens = self.shares * time[..., None] * self.column("tokens_per_second")
        total = tokens.sum(axis=-1, keepdims=True)
        tokens = tokens * np.minimum(1, goal.tokens_stock / total)
        short = tokens[..., -1:] < goal.last_share * tokens.sum(axis=-1, keepdims=True)
        idle = (tokens[..., 1:] <= 2 * goal.idle_tokens).any(axis=-1, keepdims=True)
        refused = (time <= 0)[..., None] | (stages > 1) & (short | idle)
        return np.where(refused, np.nan, tokens)

    def losses(self, belief: Belief) -> tuple[Array, Array]:
        """Final losses at the pessimistic and the optimistic end, each (laws, M, P)."""
        params, tokens = self.column("params"), self.tokens()
        ends = {
            rho: np.array(
                [_final(law, params, tokens, self.goal.idle_tokens, rho) for law in belief.laws.values()]
            )
            for rho in set(belief.rho)
        }
        return ends[belief.rho[0]], ends[belief.rho[1]]

    def schedule(self, m: int, p: int, belief: Belief) -> Schedule:
        """One of them."""
        tokens = self.tokens()[m, p]
        rungs = tuple(self.rungs[i] for i in self.ladders[m])
        seconds = self.overhead()[m, 0] + sum(
            n / rung.tokens_per_second for n, rung in zip(tokens, rungs, strict=True)
        )
        idle = self.goal.idle_tokens
        return Schedule(rungs, tuple(map(float, tokens)), float(seconds), idle, belief)


def _ladders(rungs: Sequence[Rung], goal: Goal, stages: int) -> Iterator[tuple[int, ...]]:
    """Indices of every chain of sizes that can grow into each other and ends at one that is wanted."""
    chains = [(k,) for k, rung in enumerate(rungs) if goal.min_params <= rung.params <= goal.max_params]
    for _ in range(stages - 1):
        chains = [
            (k, *chain)
            for chain in chains
            for k, rung in enumerate(rungs[: chain[0]])
            if SMALLEST_GROWTH <= rungs[chain[0]].params / rung.params <= goal.max_growth
            and fits_into(rung.config, rungs[chain[0]].config)
        ]
    yield from chains


def _final(law: Chinchilla, params: Array, tokens: Array, idle: float, rho: float) -> Array:
    """`growth_theory.final_loss` of many schedules at once: params (M, 1, k), tokens (M, P, k)."""
    size = law.E + law.A * params**-law.alpha
    at = tokens[..., 0]
    for k in range(1, tokens.shape[-1]):
        above = size[..., k - 1] + law.B * at**-law.beta - size[..., k]
        pessimistic = (law.B / above) ** (1 / law.beta)
        mixed = pessimistic if rho == 0 else at if rho == 1 else pessimistic ** (1 - rho) * at**rho
        at = mixed + tokens[..., k] - idle
    return size[..., -1] + law.B * at**-law.beta


def _best(tried: Sequence[tuple[_Grid, Array, Array]], belief: Belief, wish: Wish) -> Schedule | None:
    """The schedule with the smallest wish, its split refined; None if none is allowed."""
    found: tuple[float, Schedule] | None = None
    for grid, low, high in tried:
        score = _finite(wish(low, high))
        top = np.argsort(score.min(axis=1))[:REFINED]
        shares = np.broadcast_to(grid.shares, (len(grid.ladders), *grid.shares.shape[1:]))
        grid, best = grid.some(list(top)), shares[top, score[top].argmin(axis=1)]
        for width in (0.5, 0.15, 0.05, 0.015):
            near = grid.around(best, width / PARTS[best.shape[1]])
            score = _finite(wish(*near.losses(belief)))
            best = near.shares[range(len(top)), score.argmin(axis=1)]
            m, p = np.unravel_index(score.argmin(), score.shape)
            if score[m, p] < math.inf and (found is None or score[m, p] < found[0]):
                found = float(score[m, p]), near.schedule(int(m), int(p), belief)
    return found[1] if found else None


def _finite(score: Array) -> Array:
    return np.where(np.isnan(score), np.inf, score)
