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

Everything depends on U and C: adding a span with a new smallest or largest `seq_len` is another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from growlm.data.dataset import TokenDataset
from growlm.data.deal import Deal, Span
from growlm.data.permutation import key_of, mix, permute
from growlm.errors import DataError, RecipeError

__all__ = ["Draw", "Mixture", "Span"]


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

    def __init__(self, dataset: TokenDataset, spans: Sequence[Span], seed: int) -> None:
        """Check the spans against the data and find where each span starts.

        Raises:
            RecipeError: a span's numbers, sources or weights are wrong, or its `seq_len` is not a multiple
                of the smallest. DataError: a source that is drawn has less text than one unit.
        """
        self.sources: list[str] = sorted(dataset.sources)
        self.unit_tokens, self._chunk_units = _units_of(spans)
        self._dataset = dataset
        self._deals = [
            Deal(span, index, self.sources, key_of(seed, index)) for index, span in enumerate(spans)
        ]
        self._units = [(dataset.tokens(name, "train") - 1) // self.unit_tokens for name in self.sources]
        self._keys = [key_of(seed, xxhash.xxh3_64_intdigest(name.encode())) for name in self.sources]
        self._refuse_short_sources()
        self._starts = [np.zeros(len(self.sources), np.int64)]  # units of each source used before each span
        for deal in self._deals:
            used = deal.dealt(deal.span.steps * deal.span.batch_size)
            self._starts.append(self._starts[-1] + used * (deal.span.seq_len // self.unit_tokens))
        self._cached: tuple[int, int, Draw] = (-1, -1, Draw(*[np.empty(0)] * 3))

    def batch(self, span: int, step: int, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and next tokens, (batch_size, seq_len) int64 each; `step` counts from 0 in the span.

        `rows` are the sequences of the step that are wanted, in that order; all by default, and no other
        is read.

        Raises:
            DataError: a block that is read is damaged. IndexError: there is no such step.
        """
        draw = self.units(span, step)
        draw = draw if rows is None else draw.rows(rows)
        size, width = self.unit_tokens, draw.unit.shape[1]
        x = np.empty((len(draw.source), width * size), np.int64)
        y = np.empty_like(x)
        joined = (draw.unit[:, 1:] == draw.unit[:, :-1] + 1).all(axis=1).tolist()
        drawn = zip(draw.source.tolist(), draw.unit.tolist(), joined, strict=True)
        for row, (source, units, is_one_piece) in enumerate(drawn):
            name, step_units = self.sources[source], width if is_one_piece else 1
            for first in range(0, width, step_units):
                length = step_units * size
                ids = self._dataset.read(name, "train", units[first] * size, length + 1)
                place = slice(first * size, first * size + length)
                x[row, place] = ids[:-1]
                y[row, place] = ids[1:]
        return x, y

    def units(self, span: int, step: int) -> Draw:
        """What the sequences of a step are made of. Raises IndexError: there is no such step."""
        deal = self._deals[span]
        if not 0 <= step < deal.span.steps:
            raise IndexError(f"step {step} of a span of {deal.span.steps} steps")
        start, end = step * deal.span.batch_size, (step + 1) * deal.span.batch_size
        parts = []
        while start < end:
            block, offset = divmod(start, deal.block)
            count = min(end - start, deal.block - offset)
            parts.append(self._block(span, block).rows(slice(offset, offset + count)))
            start += count
        if len(parts) == 1:
            return parts[0]
        return Draw(
            *(np.concatenate([getattr(part, f) for part in parts]) for f in ("source", "epoch", "unit"))
        )

    def dropped(self, source: str) -> int:
        """Training tokens of a source that are never inputs: the tail that fills no unit."""
        tokens = self._dataset.tokens(source, "train")
        return tokens - self._units[self.sources.index(source)] * self.unit_tokens

    def _block(self, span: int, block: int) -> Draw:
        """All sequences of one block of a span; the last one asked for is kept."""
        if self._cached[:2] == (span, block):
            return self._cached[2]
        deal = self._deals[span]
        width = deal.span.seq_len // self.unit_tokens
        source, ordinal = deal.sequences(block)
        position = (self._starts[span][source] + ordinal * width)[:, None] + np.arange(width)
        epoch, unit = np.empty_like(position), np.empty_like(position)
        for index in np.unique(source).tolist():
            mine = source == index
            epoch[mine], unit[mine] = self._place(index, position[mine])
        draw = Draw(source, epoch, unit)
        self._cached = (span, block, draw)
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
        for index, name in enumerate(self.sources):
            if self._units[index] == 0 and any(deal.weights[index] for deal in self._deals):
                raise DataError(
                    f"The training text of {name!r} is shorter than one unit of the mixture",
                    where=str(self._dataset.path),
                    why=f"{self._dataset.tokens(name, 'train')} tokens; the smallest seq_len "
                    f"{self.unit_tokens} needs one more than itself",
                    fix="add text, or leave the source out of the mixture",
                )


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
