"""What a search will try: its slots, and the sampler, pruner and distributions that optuna needs for them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler

from growlm.errors import RecipeError
from growlm.search.space import Axis, Space, Value
from growlm.search.study import Slot

Sampler = Literal["grid", "qmc", "tpe"]
Pruner = Literal["median", "halving", "none"]
TRIALS = 32
"""Of qmc and tpe, unless a number is given."""
SPARED = 0.3
"""Share of a trial in which none is pruned: a high learning rate starts worse and ends better."""
STARTUP = 5
"""Trials that must be done before one is pruned."""


@dataclass(frozen=True)
class Plan:
    """A search: the space, how it is sampled, and in how many trials."""

    space: Space
    sampler: Sampler
    trials: int
    seed: int

    def slots(self) -> list[Slot]:
        """Every trial of the search, in an order that spreads over the space from the start."""
        if self.sampler == "tpe":
            return [Slot(f"tpe/{i}", None, self.seed) for i in range(self.trials)]
        if self.sampler == "grid":
            points = self.space.grid()
            random.Random(self.seed).shuffle(points)
        else:
            points = [tuple(map(_between, self.space.axes, at)) for at in _sobol(self)]
        return [
            Slot(f"{self.sampler}/{point_name(named)}", named, self.seed)
            for named in map(self.space.named, points)
        ]

    def sampler_of(self, number: int) -> BaseSampler:
        """What draws the values of a trial, if its slot has none."""
        return TPESampler(seed=hash((self.seed, number)) % 2**32, n_startup_trials=max(8, self.trials // 4))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every field as optuna knows it. Lists are choices for tpe, places on the grid otherwise."""
        return {axis.name: self._distribution(axis) for axis in self.space.axes}

    def _distribution(self, axis: Axis) -> BaseDistribution:
        if not axis.numeric or (self.sampler == "tpe" and not axis.span):
            return CategoricalDistribution(axis.values)
        low, high = axis.values[0], axis.values[-1]
        if all(isinstance(v, int) for v in axis.values):
            return IntDistribution(int(low), int(high), log=axis.log)
        return FloatDistribution(float(low), float(high), log=axis.log)


def make_plan(space: Space, sampler: Sampler, trials: int | None, seed: int) -> Plan:
    """Raises RecipeError for a number of trials that a grid does not have, or too few."""
    if sampler == "grid":
        if trials is not None and trials != space.size:
            raise RecipeError(
                f"the grid has {space.size} points, not {trials}",
                where="--trials",
                fix="leave out --trials, or sample with --sampler qmc or tpe",
            )
        return Plan(space, sampler, space.size, seed)
    return Plan(space, sampler, trials or TRIALS, seed)


def make_pruner(kind: Pruner, tokens: int, every: int) -> BasePruner:
    """The pruner of trials of so many tokens that are looked at every so many."""
    if kind == "median":
        return MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=int(SPARED * tokens))
    if kind == "halving":
        first = max(1, math.ceil(SPARED * tokens / every)) * every
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=2)
    return NopPruner()


def seed_slots(values: dict[str, Value], seeds: Iterable[int]) -> list[Slot]:
    """The same point again under other seeds; never pruned."""
    return [Slot(f"seed {seed}/{point_name(values)}", values, seed, prunable=False) for seed in seeds]


def point_name(values: dict[str, Value]) -> str:
    """One name for a point, whatever the order of its fields."""
    return json.dumps(values, sort_keys=True)


def _sobol(plan: Plan) -> list[list[float]]:
    """Points of a scrambled Sobol sequence in the unit cube: (trials, axes)."""
    from torch.quasirandom import SobolEngine

    return SobolEngine(len(plan.space.axes), scramble=True, seed=plan.seed).draw(plan.trials).tolist()


def _between(axis: Axis, share: float) -> Value:
    """The value at a share of an axis: anywhere in a range, one of a list."""
    if not axis.span:
        return axis.values[min(len(axis.values) - 1, int(share * len(axis.values)))]
    low, high = float(axis.values[0]), float(axis.values[-1])
    value = low * (high / low) ** share if axis.log else low + (high - low) * share
    return round(value) if isinstance(axis.values[0], int) else float(f"{value:.6g}")
