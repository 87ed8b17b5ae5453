"""The cheapest way to a loss at a size through smaller sizes, by path independence. No torch.

If what counts is the loss, a run is a path of losses, and its cost is a sum over sizes: so dynamic
programming over (size, loss) finds the best of all ladders at once. This is what growth can gain if nothing
but the loss carries over; it is the bound that a real schedule is compared with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from growlm.plan.growth.theory import Leg
from growlm.scaling.laws import Chinchilla

Array = np.ndarray


@dataclass(frozen=True)
class Ladder:
    """Legs, what they cost (6 N D), and the FLOPs of the last size alone over that."""

    legs: tuple[Leg, ...]
    flops: float
    saving: float


def best_ladder(
    law: Chinchilla,
    params: float,
    tokens: float,
    stages: int,
    *,
    last_share: float,
    sizes: int = 120,
    levels: int = 1500,
) -> Ladder:
    """The cheapest path of at most `stages` sizes to the loss of `params` after `tokens`.

    The last size trains for the last `last_share` of these tokens: without that the law would grow in the
    last instant. Sizes are on a geometric grid from 1/200 of `params`, switches on one of losses.
    """
    n = np.geomspace(params / 200, params, sizes)
    goal = law.loss(params, tokens)
    floor = law.E + law.A * params**-law.alpha
    loss = floor + np.geomspace(20 * (goal - floor), goal - floor, levels)
    above = loss[None, :] - law.E - law.A * n[:, None] ** -law.alpha
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.where(above > 0, (law.B / above) ** (1 / law.beta), np.inf)
    spent = 6 * n[:, None] * at
    early = np.ones_like(spent, dtype=bool)
    early[-1] = at[-1] <= (1 - last_share) * tokens
    cost, back = [spent], []
    for _ in range(stages - 1):
        cheapest, size = _smallest_before(cost[-1])
        with np.errstate(invalid="ignore"):
            step = np.where(np.isfinite(spent) & early, cheapest - spent, np.inf)
        best, level = _running_minimum(step)
        new = np.where(np.isfinite(spent), best + spent, np.inf)
        keep = cost[-1] <= new
        back.append((np.where(keep, -1, np.take_along_axis(size, level, axis=1)), level))
        cost.append(np.minimum(cost[-1], new))
    legs = _legs(n, at, back)
    flops = float(cost[-1][-1, -1])
    return Ladder(legs, flops, 6 * params * tokens / flops)


def _smallest_before(cost: Array) -> tuple[Array, Array]:
    """Of every row the smallest of the rows above it, by column, and which; none above the first."""
    best, index = np.full_like(cost, math.inf), np.zeros(cost.shape, dtype=int)
    for i in range(1, len(cost)):
        better = cost[i - 1] < best[i - 1]
        best[i] = np.where(better, cost[i - 1], best[i - 1])
        index[i] = np.where(better, i - 1, index[i - 1])
    return best, index


def _running_minimum(step: Array) -> tuple[Array, Array]:
    """Of every row the smallest so far, and where."""
    best = np.minimum.accumulate(step, axis=1)
    new = np.concatenate([np.ones((len(step), 1), dtype=bool), step[:, 1:] < best[:, :-1]], axis=1)
    places = np.where(new, np.arange(step.shape[1])[None, :], 0)
    return best, np.maximum.accumulate(places, axis=1)


def _legs(n: Array, at: Array, back: list[tuple[Array, Array]]) -> tuple[Leg, ...]:
    """The path to the last size and loss, backwards through the choices."""
    i, j, legs = len(n) - 1, at.shape[1] - 1, []
    for size, level in reversed(back):
        if size[i, j] < 0:
            continue
        before, when = int(size[i, j]), int(level[i, j])
        legs.append(Leg(float(n[i]), float(at[i, j] - at[i, when])))
        i, j = before, when
    legs.append(Leg(float(n[i]), float(at[i, j])))
    return tuple(reversed(legs))
