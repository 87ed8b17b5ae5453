"""Whether the best learning rate stays where it is as the model grows: the test of a parametrization.

Trials are the proxies of one target at several widths or depths, each trained from random weights at every
learning rate of a grid of twos. Under muP and CompleteP the best rate may move one notch over 8 times the
width (2203.03466; 2505.01618); under the standard parametrization it falls.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from growlm.errors import Diverged, GrowLMError
from growlm.plan.progress import total_tokens
from growlm.recipe.load import resolve_hash
from growlm.recipe.schema import Recipe
from growlm.search.proxy import make_proxy
from growlm.search.space import recipe_at, short
from growlm.search.trial import OUTPUT, Trial, gpus, warm_up

POLL_SECONDS = 0.1
Key = TypeVar("Key")


@dataclass(frozen=True)
class Sweep:
    """Losses over a grid of learning rates at several sizes of one parametrization."""

    label: str
    axis: Literal["width", "depth"]
    losses: dict[int, dict[float, float]]
    """By size and learning rate; inf where training diverged."""

    def best(self, size: int) -> float:
        """The best rate of the grid at a size."""
        return min(self.losses[size], key=self.losses[size].__getitem__)

    def moved(self) -> dict[int, int]:
        """Notches of 2 that the best rate has moved by, from the smallest size to each."""
        first = self.best(min(self.losses))
        return {size: round(math.log2(self.best(size) / first)) for size in sorted(self.losses)}

    def vertex(self, size: int) -> float | None:
        """The best rate by a parabola through the losses of the best rate and the two beside it; None where
        there is no such parabola."""
        rates = sorted(self.losses[size])
        at = rates.index(self.best(size))
        if not 0 < at < len(rates) - 1:
            return None
        near = rates[at - 1 : at + 2]
        ys = [self.losses[size][rate] for rate in near]
        if not all(map(math.isfinite, ys)):
            return None
        curve, slope, _ = np.polyfit([-1.0, 0.0, 1.0], ys, 2)
        return float(rates[at] * 2 ** (-slope / (2 * curve))) if curve > 0 else None


def sized(target: Recipe, axis: Literal["width", "depth"], size: int) -> Recipe:
    """The proxy of a target at a width or depth, on all of its tokens."""
    tokens = total_tokens(target)
    if axis == "depth":
        return make_proxy(target, width=target.stages[-1].d_model, layers=size, tokens=tokens).recipe
    return make_proxy(target, width=size, tokens=tokens).recipe


def sweep(
    label: str,
    target: Recipe,
    axis: Literal["width", "depth"],
    sizes: Sequence[int],
    rates: Sequence[float],
    folder: Path,
    workers: int,
    say: Callable[[str], None],
    known: Mapping[int, Mapping[float, float]] | None = None,
) -> Sweep:
    """Train the smallest size at every rate; then each at the best rate of the one before, and at twice and
    half the best one until that lies between. The same command goes on after a kill.

    `known` are losses that need no training, by size and rate.
    """
    losses = {size: dict((known or {}).get(size, {})) for size in sorted(sizes)}
    wanted = list(rates)
    for size, row in losses.items():
        while missing := [rate for rate in wanted if rate not in row]:
            recipe = sized(target, axis, size)
            recipes = {rate: _plain(recipe_at(recipe, {"optim.lr": rate})) for rate in missing}
            for rate, loss in train_all(recipes, folder, workers):
                row[rate] = loss
                say(f"{label}, {axis} {size}, learning rate {short(rate)}: loss {loss:.4f}")
            wanted = _around(row)
        wanted = _around(row)
    return Sweep(label, axis, losses)


def _around(row: Mapping[float, float]) -> list[float]:
    """The best rate and one notch to either side."""
    best = min(row, key=row.__getitem__)
    return [best / 2, best, best * 2]


def train_all(recipes: Mapping[Key, Recipe], folder: Path, workers: int) -> Iterator[tuple[Key, float]]:
    """Train recipes in forked children, so many at a time; the last validation loss of each as it ends, inf
    if it diverged. What is done in `folder` is not done again. Raises GrowLMError if one fails."""
    warm_up()
    devices = gpus()
    waiting, running = list(recipes), dict[Key, Trial]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                key = waiting.pop(0)
                gpu = devices[len(running) % len(devices)] if devices else None
                running[key] = Trial(recipes[key], folder / resolve_hash(recipes[key])[:16], gpu)
            for key, trial in list(running.items()):
                code = trial.poll()
                if code is not None:
                    del running[key]
                    yield key, _loss(trial, code)
            time.sleep(POLL_SECONDS)
    finally:
        for trial in running.values():
            trial.stop()
        for trial in running.values():
            while trial.poll() is None:
                time.sleep(POLL_SECONDS)


def _loss(trial: Trial, code: int) -> float:
    """The loss that a trial came to. Raises GrowLMError if it was not trained to its end."""
    if code == Diverged.exit_code:
        return math.inf
    losses = trial.losses()
    if code or not losses:
        raise GrowLMError(
            f"a trial ended with exit code {code}", where=str(trial.folder / OUTPUT), why=trial.last_words()
        )
    return losses[max(losses)]


def _plain(recipe: Recipe) -> Recipe:
    """On one thread, validated at its end alone."""
    data = recipe.model_dump(exclude_unset=True)
    data["train"] = data.get("train", {}) | {"threads": 1}
    data["eval"] |= {"every_tokens": total_tokens(recipe)}
    return Recipe.model_validate(data)
