"""The batch at (span, step): a pure function of the seed and the table of spans. There is no state.

**Units.** A source's training tokens are cut into units of U tokens, the smallest `seq_len` of all
spans. Units are drawn epoch by epoch. Within an epoch, chunks of C tokens (the largest `seq_len`) are
permuted and the units inside a chunk stay in order; units that fill no whole chunk come last. A sequence
of a span is the next `seq_len / U` units of its source. So a change of batch, sequence length or mixture
at a span boundary loses and repeats nothing. Sequences as long as C are contiguous text as long as their
source is aligned to chunks; after a change of length a sequence may join the end of one chunk to the
start of another.

**Labels.** The label of a position is the token after it in file order, also at the end of a unit, so
every token but the first of a stream is a target once an epoch. A tail shorter than a unit is dropped.

**Sources.** The sequences of a span are dealt in blocks. Each block holds a fixed number from every
source, by cumulative quota (so shares never drift from the weights by more than one sequence), in an
order shuffled by the seed. Where a source stands at the start of a span is the sum over earlier spans.

**Examples.** A source of examples (`growlm/data/packing.py`) has whole examples in each unit, and padding;
what of them is learnt, and how much it counts, is in the batch. Sources of several objectives may take turns.

Everything depends on U and C: adding a span with a new smallest or largest `seq_len` is another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash

from growlm.data.dataset import TokenDataset
from growlm.data.deal import Deal, Span, Turns, check
from growlm.data.learning import Learnt, learnt_of
from growlm.data.permutation import key_of, mix, permute
from growlm.errors import DataError, RecipeError
from growlm.recipe.objectives import OBJECTIVES, Objective, ObjectivesTable

__all__ = ["Batch", "Draw", "Mixture", "Span"]


class Batch(NamedTuple):
    """Some sequences of a step."""

    tokens: np.ndarray
    """(B, T) int64."""
    targets: np.ndarray
    """(B, T) int64: the next tokens."""
    weights: np.ndarray | None
    """(B, T) float32: factor on each target's loss, on average 1 over all sequences of the step; None where
    all tokens of all sources count alike."""
    objective: np.ndarray
    """(B,) int64: index into `OBJECTIVES`."""


@dataclass(frozen=True)
class Draw:
    """What some consecutive sequences of a span are made of."""

    source: np.ndarray
    """(B,) index into `Mixture.sources`."""
    epoch: np.ndarray
    """(B, units) epoch of the source that each unit is drawn in."""
    unit: np.ndarray
    """(B, units) number of each unit in the source's stream."""

    def rows(self, rows: slice | np.ndarray) -> Draw:
        """Some of these sequences."""
        return Draw(self.source[rows], self.epoch[rows], self.unit[rows])


class Mixture:
    """Serves the batches of all spans of a run."""

    def __init__(
        self,
        dataset: TokenDataset,
        spans: Sequence[Span],
        seed: int,
        objectives: ObjectivesTable = ObjectivesTable(),  # pyright: ignore[reportCallIssue]
    ) -> None:
        """Check the spans against the data and find where each span starts.

        Raises:
            RecipeError: a span's numbers, sources or weights are wrong, its `seq_len` is not a multiple of
                the smallest, or an objective does not fit its source. DataError: a source that is drawn has
                less text than one unit.
        """
        self.sources: list[str] = sorted(dataset.sources)
        for index, span in enumerate(spans):
            check(span, index, self.sources)
        self.unit_tokens, self._chunk_units = _units_of(spans)
        self._dataset = dataset
        drawn = sorted({name for span in spans for name, weight in span.weights.items() if weight})
        self.learnt = learnt_of(dataset, drawn, self.unit_tokens, objectives)
        self._refuse_short_sources()
        self._units = [self.learnt[name].units if name in drawn else 0 for name in self.sources]
        self._keys = [key_of(seed, xxhash.xxh3_64_intdigest(name.encode())) for name in self.sources]
        groups = [[n for n, one in self.learnt.items() if one.objective == o] for o in OBJECTIVES]
        self._turns = [Turns(span, groups) for span in spans]
        self._deals = [
            [Deal(part, self.sources, _key(seed, index, k)) for k, part in enumerate(turns.parts)]
            for index, turns in enumerate(self._turns)
        ]
        self._starts = [np.zeros(len(self.sources), np.int64)]  # units of each source used before each span
        for index, span in enumerate(spans):
            self._starts.append(self.used(index, span.steps))
        self._cached: tuple[tuple[int, int, int] | None, Draw] = (None, Draw(*[np.empty(0)] * 3))

    def batch(self, span: int, step: int, rows: np.ndarray | None = None) -> Batch:
        """The sequences of a step; `step` counts from 0 in the span.

        `rows` are those that are wanted, in that order; all by default, and no other is read.

        Raises:
            DataError: a block that is read is damaged. IndexError: there is no such step.
        """
        whole = self.units(span, step)
        draw = whole if rows is None else whole.rows(rows)
        shape = (len(draw.source), draw.unit.shape[1] * self.unit_tokens)
        x, y = np.empty(shape, np.int64), np.empty(shape, np.int64)
        weights = None if self.plain(span) else np.empty(shape, np.float32)
        scale = 1.0 if weights is None else shape[1] * len(whole.source) / self._counted(whole)
        for row, (source, units) in enumerate(zip(draw.source.tolist(), draw.unit, strict=True)):
            name = self.sources[source]
            if self.learnt[name].packing is None:
                self._read_text(name, units, x[row], y[row])
                learnt = np.ones(1, bool)
            else:
                learnt = self._read_examples(name, units, x[row], y[row])
            if weights is not None:
                weights[row] = learnt * np.float32(self.learnt[name].weight * scale)
        return Batch(x, y, weights, self._objectives()[draw.source])

    def plain(self, span: int) -> bool:
        """Whether every token that a span draws counts alike."""
        drawn = [self.learnt[n] for n, weight in self._turns[span].span.weights.items() if weight]
        return all(one.packing is None and one.weight == drawn[0].weight for one in drawn)

    def used(self, span: int, steps: int) -> np.ndarray:
        """Units of each source that are drawn before step `steps` of a span, all spans before it included."""
        turns = self._turns[span]
        size, width = turns.span.batch_size, turns.span.seq_len // self.unit_tokens
        counts = zip(self._deals[span], turns.steps(steps), strict=True)
        return self._starts[span] + width * np.sum([deal.dealt(n * size) for deal, n in counts], axis=0)

    def epochs(self, span: int, steps: int) -> dict[str, float]:
        """How often each source that the run draws was gone round, before step `steps` of a span."""
        used = dict(zip(self.sources, self.used(span, steps).tolist(), strict=True))
        return {name: used[name] / one.units for name, one in self.learnt.items()}

    def drawn(self, span: int, steps: int) -> dict[Objective, int]:
        """Tokens drawn for each objective of the run before step `steps` of a span."""
        used = dict(zip(self.sources, self.used(span, steps).tolist(), strict=True))
        known = {one.objective for one in self.learnt.values()}
        found: dict[Objective, int] = {o: 0 for o in OBJECTIVES if o in known}
        for name, one in self.learnt.items():
            found[one.objective] += used[name] * self.unit_tokens
        return found

    def units(self, span: int, step: int) -> Draw:
        """What the sequences of a step are made of. Raises IndexError: there is no such step."""
        part, step = self._turns[span].at(step)
        deal = self._deals[span][part]
        start, end = step * deal.span.batch_size, (step + 1) * deal.span.batch_size
        parts = []
        while start < end:
            block, offset = divmod(start, deal.block)
            count = min(end - start, deal.block - offset)
            parts.append(self._block(span, part, block).rows(slice(offset, offset + count)))
            start += count
        if len(parts) == 1:
            return parts[0]
        return Draw(
            *(np.concatenate([getattr(part, f) for part in parts]) for f in ("source", "epoch", "unit"))
        )

    def learnt_tokens(self, span: int, step: int) -> dict[Objective, int]:
        """How many targets of a step each objective learns."""
        draw = self.units(span, step)
        found: dict[Objective, int] = {}
        for source in np.unique(draw.source).tolist():
            one = self.learnt[self.sources[source]]
            counted = int(one.counts(draw.unit[draw.source == source]).sum())
            found[one.objective] = found.get(one.objective, 0) + counted
        return found

    def dropped(self, source: str) -> int:
        """Training tokens of a source of running text that are never inputs: the tail that fills no unit."""
        tokens = self._dataset.tokens(source, "train")
        return tokens - self._units[self.sources.index(source)] * self.unit_tokens

    def _read_text(self, name: str, units: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        """Fill one sequence, (T,) each, from some units of running text."""
        size = self.unit_tokens
        step = len(units) if (units[1:] == units[:-1] + 1).all() else 1
        for first in range(0, len(units), step):
            place = slice(first * size, (first + step) * size)
            ids = self._dataset.read(name, "train", int(units[first]) * size, step * size + 1)
            x[place], y[place] = ids[:-1], ids[1:]

    def _read_examples(self, name: str, units: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fill one sequence from some units of examples; which of its targets are learnt, (T,) bool."""
        size, one = self.unit_tokens, self.learnt[name]
        learnt = np.empty(len(x), bool)
        for k, unit in enumerate(units.tolist()):
            place, where = slice(k * size, (k + 1) * size), one.place(unit)
            found = self._dataset.unit(name, "train", *where, size)
            x[place], y[place] = found.tokens[0], found.targets[0]
            learnt[place] = one.learnt(found)[0]
        return learnt

    def _counted(self, draw: Draw) -> float:
        """The weights of all targets of some sequences, summed."""
        total = 0.0
        for source in np.unique(draw.source).tolist():
            one = self.learnt[self.sources[source]]
            total += one.weight * float(one.counts(draw.unit[draw.source == source]).sum())
        return total

    def _objectives(self) -> np.ndarray:
        """The objective of every source, (sources,); of one that is not drawn any."""
        named = (self.learnt[n].objective if n in self.learnt else OBJECTIVES[0] for n in self.sources)
        return np.array([OBJECTIVES.index(o) for o in named])

    def _block(self, span: int, part: int, block: int) -> Draw:
        """All sequences of one block of a part of a span; the last one asked for is kept."""
        if self._cached[0] == (span, part, block):
            return self._cached[1]
        deal = self._deals[span][part]
        width = deal.span.seq_len // self.unit_tokens
        source, ordinal = deal.sequences(block)
        position = (self._starts[span][source] + ordinal * width)[:, None] + np.arange(width)
        epoch, unit = np.empty_like(position), np.empty_like(position)
        for index in np.unique(source).tolist():
            mine = source == index
            epoch[mine], unit[mine] = self._place(index, position[mine])
        draw = Draw(source, epoch, unit)
        self._cached = ((span, part, block), draw)
        return draw

    def _place(self, source: int, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epoch and unit of the positions in a source's endless sequence of units; elementwise."""
        epoch, within = np.divmod(position, self._units[source])
        chunk, offset = np.divmod(within, self._chunk_units)
        chunks = self._units[source] // self._chunk_units
        whole = chunk < chunks
        keys = mix(epoch[whole].astype(np.uint64)) ^ self._keys[source]
        unit = within.copy()
        unit[whole] = permute(chunk[whole], chunks, keys) * self._chunk_units + offset[whole]
        return epoch, unit

    def _refuse_short_sources(self) -> None:
        for name, one in self.learnt.items():
            if not one.units:
                raise _too_short(name, one, self._dataset)


def _too_short(name: str, one: Learnt, dataset: TokenDataset) -> DataError:
    if one.packing is None:
        what, fix = f"The training text of {name!r} is shorter than one unit of the mixture", "add text"
        have = f"{dataset.tokens(name, 'train')} tokens"
        why = f"{have}; the smallest seq_len {one.unit} needs one more than itself"
    else:
        what, fix = f"No example of {name!r} fits in a unit of the mixture", "a larger seq_len"
        why = f"the smallest seq_len is {one.unit}, and all {one.packing.too_long} examples are longer"
    return DataError(
        what, where=str(dataset.path), why=why, fix=f"{fix}, or leave the source out of the mixture"
    )


def _key(seed: int, span: int, part: int) -> np.ndarray:
    """Of the order in which a part of a span is dealt."""
    return key_of(seed, span, part) if part else key_of(seed, span)


def _units_of(spans: Sequence[Span]) -> tuple[int, int]:
    """(tokens of a unit, units of a chunk): the smallest and the largest sequence length."""
    lengths = [span.seq_len for span in spans]
    unit = min(lengths)
    for index, length in enumerate(lengths):
        if length % unit:
            raise RecipeError(
                f"A sequence length of {length} is not a multiple of {unit}, the smallest",
                where=f"stages.{index}.seq_len",
                why="text is dealt in units of the smallest length, so that a change repeats and loses none",
                fix=f"seq_len = {max(1, round(length / unit)) * unit}",
            )
    return unit, max(lengths) // unit
