"""Which source each sequence of a span comes from: fixed counts per block, by cumulative quota."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from growlm.data.permutation import key_of, mix, shuffled
from growlm.errors import RecipeError
from growlm.recipe.keys import did_you_mean

BLOCK = 256
"""Sequences in a block; more, where a small weight needs more to have one sequence in each."""
_SMALLEST_SHARE = 1e-5


@dataclass(frozen=True)
class Span:
    """Steps with one batch size (sequences), sequence length (tokens) and mixture: usually one stage."""

    steps: int
    batch_size: int
    seq_len: int
    weights: Mapping[str, float]
    alternating: bool = False
    """Whether groups of sources take turns, each step drawing from one; otherwise every step from all."""

    def parts(self, groups: Iterable[Sequence[str]]) -> list[Span]:
        """The span of each group that takes turns, with as many steps as there are turns in all."""
        weights = [{n: w for n, w in self.weights.items() if n in group and w} for group in groups]
        if not self.alternating:
            return [self]
        return [replace(self, weights=part) for part in weights if part]


class Turns:
    """Which part of a span each of its steps belongs to.

    The i-th step of a part with share s of the weights is due at (i + 1/2) / s: each part comes as evenly as
    it can, and a longer span begins as a shorter one does.
    """

    def __init__(self, span: Span, groups: Iterable[Sequence[str]]) -> None:
        self.span, self.parts = span, span.parts(groups)
        shares = np.array([math.fsum(part.weights.values()) for part in self.parts])
        shares = shares / shares.sum() if len(shares) > 1 else np.ones(1)
        due = [(np.arange(math.ceil(span.steps * share) + 1) + 0.5) / share for share in shares]
        part = np.repeat(np.arange(len(due)), [len(times) for times in due])
        order = np.argsort(np.concatenate(due), kind="stable")[: span.steps]
        self._part = part[order]
        self._nth = np.zeros_like(self._part)
        for index in range(len(due)):
            mine = self._part == index
            self._nth[mine] = np.arange(mine.sum())

    def at(self, step: int) -> tuple[int, int]:
        """The part of a step, and which of its own steps it is. Raises IndexError: there is no such step."""
        if not 0 <= step < len(self._part):
            raise IndexError(f"step {step} of a span of {len(self._part)} steps")
        return int(self._part[step]), int(self._nth[step])

    def steps(self, count: int) -> list[int]:
        """How many of the first `count` steps are each part's."""
        return np.bincount(self._part[:count], minlength=len(self.parts)).tolist()


class Deal:
    """The sequences of one span, dealt to the sources."""

    def __init__(self, span: Span, sources: Sequence[str], key: np.ndarray) -> None:
        total = math.fsum(span.weights.values())
        self.span, self._key = span, key
        self.weights = [round(span.weights.get(name, 0.0) / total * 2**48) for name in sources]
        self.block = max(
            BLOCK, 1 << math.ceil(math.log2(sum(self.weights) / min(filter(None, self.weights))))
        )

    def sequences(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each sequence of a block: its source, and how many of that source came before in the span.

        Both (block,) int64.
        """
        before = self._quota(block * self.block)
        counts = self._quota((block + 1) * self.block) - before
        order = shuffled(self.block, mix(self._key ^ key_of(block)))
        source = np.empty(self.block, np.int64)
        source[order] = np.repeat(np.arange(len(counts)), counts)
        ordinal = np.empty_like(source)
        for index in np.flatnonzero(counts):
            ordinal[source == index] = before[index] + np.arange(counts[index])
        return source, ordinal

    def dealt(self, count: int) -> np.ndarray:
        """How many of the first `count` sequences come from each source, (sources,) int64."""
        block, rest = divmod(count, self.block)
        source, _ = self.sequences(block)
        return self._quota(block * self.block) + np.bincount(source[:rest], minlength=len(self.weights))

    def _quota(self, count: int) -> np.ndarray:
        """Sequences of each source among the first `count`, at a block's end: largest remainders, exact.

        Never falls as blocks go on, since each source's share of a block is at least one.
        """
        total = sum(self.weights)
        whole = [count * weight // total for weight in self.weights]
        remainders = sorted(range(len(whole)), key=lambda i: (-(count * self.weights[i] % total), i))
        for i in remainders[: count - sum(whole)]:
            whole[i] += 1
        return np.array(whole, np.int64)


def check(span: Span, index: int, sources: Sequence[str]) -> None:
    """Raise RecipeError if the numbers or weights are impossible; `index` is the span's place in the run."""
    where = f"stages.{index}.mixture"
    if min(span.batch_size, span.seq_len) < 1 or span.steps < 0:
        raise RecipeError(f"Stage {index} has no steps, sequences or tokens", where=f"stages.{index}")
    for name, weight in span.weights.items():
        if name not in sources:
            guess = did_you_mean(name, sources)
            raise RecipeError(
                f"The data has no source {name!r}",
                where=f"{where}.{name}",
                why=f"it has {', '.join(sources)}",
                fix=f"did you mean {guess!r}?"
                if guess
                else "prepare the data with this source, or remove it",
            )
        if not (math.isfinite(weight) and weight >= 0):
            raise RecipeError(
                f"A weight of {weight} is not a share", where=f"{where}.{name}", fix="0 or more"
            )
    total = math.fsum(span.weights.values())
    if not total:
        raise RecipeError("All weights of a mixture are zero", where=where, fix="give one source a weight")
    for name, weight in span.weights.items():
        if 0 < weight / total < _SMALLEST_SHARE:
            raise RecipeError(
                f"The share of {name!r} is too small to be dealt",
                where=f"{where}.{name}",
                why=f"{weight / total:.1e} of the mixture; at least {_SMALLEST_SHARE:.0e}, or 0",
                fix=f"{name} = 0",
            )
