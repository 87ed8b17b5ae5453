"""Texts that quote an evaluation set: they share a run of words, or of Chinese characters, with an item.

After GPT-3 (2005.14165, appendix C): runs of 13 words; an item of fewer words is one run, if it has 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from growlm.data.cleaning.evaluation_sets import evaluation_files, items
from growlm.data.cleaning.units import ngrams, prefix_sums, spans, stretches, units
from growlm.errors import DataError

WORDS, MIN_WORDS = 13, 8
"""GPT-3's run, and its lower limit for short items."""
CHARACTERS, MIN_CHARACTERS = 26, 16
"""The same for Chinese, where a character says half as much as an English word (docs/data-cleaning.md)."""
_HEAD = MIN_WORDS  # units of a run that the filter looks at first
_FILTER_BITS = 16  # bits of the filter per hash: one in 60 passes by chance
_BATCH = 1 << 18  # characters of an evaluation set, or hashes, handled at a time
_FORMAT = 2


@dataclass(frozen=True, eq=False)
class Contamination:
    """The runs of some evaluation sets. Takes about 14 bytes of memory for each word of them."""

    names: tuple[str, ...]
    """The sets: each file is one."""
    items: tuple[int, ...]
    """How many items each set has."""
    short: tuple[int, ...]
    """How many of these are too short to be told from ordinary text, and so are never found."""
    runs: np.ndarray
    """(K,) uint64, ascending: hashes of all runs, once for each set that has it."""
    sets: np.ndarray
    """(K,) uint16: of which set."""
    lengths: tuple[int, ...]
    """Lengths of the runs, in units."""
    filter: np.ndarray
    """(2^k,) uint64: a Bloom filter of `runs` and their first `_HEAD` units."""

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> Contamination:
        """Read evaluation sets from files and folders: JSON lines, JSON, CSV, plain text, also `.gz`.

        Raises:
            DataError: nothing there, unreadable or malformed; two sets of one name.
        """
        files = evaluation_files(paths)
        builder = _Builder()
        for index, path in enumerate(files.values()):
            for batch in _batches(path):
                builder.add(index, batch)
        return builder.build(tuple(files))

    def sets_in(self, text: str) -> list[str]:
        """Names of the sets that a text quotes, in the order of `names`."""
        found: set[int] = set()
        for stretch in stretches(text):
            found.update(self._found(stretch))
        return [self.names[index] for index in sorted(found)]

    def _found(self, text: str) -> set[int]:
        found: set[int] = set()
        hashes, _, _ = _units_of([text])
        starts, sums = np.flatnonzero(_passes(self.filter, ngrams(hashes, _HEAD))), prefix_sums(hashes)
        for length in self.lengths:
            starts = starts[starts + length <= len(hashes)]
            runs = spans(sums, starts, starts + length)
            runs = runs[_passes(self.filter, runs)]
            first, last = np.searchsorted(self.runs, runs), np.searchsorted(self.runs, runs, side="right")
            for low, high in zip(first[first < last], last[first < last], strict=True):
                found.update(self.sets[low:high].tolist())
        return found

    def save(self, path: Path) -> None:
        """Write to one file, which `load` reads: arrays of numpy's own format, one behind the other."""
        counts = np.array([self.items, self.short], np.int64)
        head = (np.array(_FORMAT), np.array(self.names, np.str_), counts, np.array(self.lengths, np.int64))
        with path.open("wb") as file:
            for array in (*head, self.runs, self.sets, self.filter):
                np.save(file, array, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> Contamination:
        """Read what `save` wrote. Raises DataError: not there, damaged, or of another version."""
        try:
            with path.open("rb") as file:
                if int(np.load(file, allow_pickle=False)) != _FORMAT:
                    raise ValueError("it is of another version")
                names, counts, lengths, *arrays = (np.load(file, allow_pickle=False) for _ in range(6))
            items, short = counts.tolist()
            runs, sets, filled = arrays
            of_sets = (tuple(names.tolist()), tuple(items), tuple(short))
            return cls(*of_sets, runs, sets, tuple(lengths.tolist()), filled)
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise DataError(
                "The runs of the evaluation sets cannot be read",
                where=str(path),
                why=str(error),
                fix="prepare again from the sets themselves",
            ) from error


class _Builder:
    """Gathers the runs of all items."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = [np.empty(0, np.uint64)]
        self._sets: list[np.ndarray] = [np.empty(0, np.uint16)]
        self._heads: list[np.ndarray] = [np.empty(0, np.uint64)]
        self._lengths: set[int] = set()
        self._items: Counter[int] = Counter()
        self._short: Counter[int] = Counter()

    def add(self, index: int, batch: Sequence[Sequence[str]]) -> None:
        """Add items of a set, each given by its fields.

        The runs of an item are those of its fields in a row. Where no field has a full run, the longest
        one is a run too, so that it is found in another layout of the item.
        """
        hashes, alone, fields = _units_of([text for item in batch for text in item])
        owner = np.repeat(np.arange(len(batch)), [len(item) for item in batch])  # item of each field
        field_ends = np.cumsum(np.bincount(fields, minlength=len(owner)))
        field_sizes = np.diff(field_ends, prepend=0)
        sizes = np.bincount(owner, field_sizes, len(batch)).astype(np.int64)
        ends = np.cumsum(sizes)
        chinese = 2 * np.bincount(owner[fields], alone, len(batch)) > sizes
        full, least = np.where(chinese, CHARACTERS, WORDS), np.where(chinese, MIN_CHARACTERS, MIN_WORDS)

        units_of = np.repeat(np.arange(len(batch)), sizes)
        first = np.flatnonzero(np.arange(len(hashes)) + full[units_of] <= ends[units_of])
        longest = np.lexsort((-field_sizes, owner))[np.searchsorted(owner, np.arange(len(batch)))]
        whole = [
            np.stack((stop - size, stop))[:, (least <= size) & (size < full)]
            for size, stop in ((field_sizes[longest], field_ends[longest]), (sizes, ends))
        ]
        starts, stops = np.concatenate((np.stack((first, first + full[units_of[first]])), *whole), axis=1)
        sums = prefix_sums(hashes)
        self._runs.append(spans(sums, starts, stops))
        self._heads.append(np.unique(spans(sums, starts, starts + _HEAD)))
        self._sets.append(np.full(len(starts), index, np.uint16))
        self._lengths.update(np.unique(stops - starts).tolist())
        self._items[index] += len(batch)
        self._short[index] += int((sizes < least).sum())

    def build(self, names: tuple[str, ...]) -> Contamination:
        runs, sets = np.concatenate(self._runs), np.concatenate(self._sets)
        order = np.lexsort((sets, runs))
        runs, sets = runs[order], sets[order]
        new = np.append(True, (runs[1:] != runs[:-1]) | (sets[1:] != sets[:-1]))[: len(runs)]
        return Contamination(
            names,
            tuple(self._items[index] for index in range(len(names))),
            tuple(self._short[index] for index in range(len(names))),
            runs[new],
            sets[new],
            tuple(sorted(self._lengths)),
            _filter(np.concatenate((runs[new], np.unique(np.concatenate(self._heads))))),
        )


def _batches(path: Path) -> Iterator[list[list[str]]]:
    """The items of a set, about `_BATCH` characters at a time."""
    batch, size = [], 0
    for fields in items(path):
        batch.append(fields)
        size += sum(map(len, fields))
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _units_of(fields: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of all fields' units, which of them are characters, and the field of each: (U,) each.

    Without single Latin letters and digits: these are often labels of choices.
    """
    found = units("\n".join(fields))
    counted = found.alone | (found.ends - found.starts > 1)
    ends = np.cumsum([len(field.lower()) + 1 for field in fields])
    starts = found.starts[counted]
    return found.hashes[counted], found.alone[counted], np.searchsorted(ends, starts, side="right")


def _filter(hashes: np.ndarray) -> np.ndarray:
    """A blocked Bloom filter of two bits in one word for each hash, (2^k,) uint64."""
    bits = max(4, (_FILTER_BITS * len(hashes) // 64).bit_length())
    words = np.zeros(1 << bits, np.uint64)
    for start in range(0, len(hashes), _BATCH):
        part = hashes[start : start + _BATCH]
        np.bitwise_or.at(words, part >> np.uint64(64 - bits), _two_bits(part))
    return words


def _passes(words: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """(N,) bool: whether the filter has each hash, or seems to."""
    bits = _two_bits(hashes)
    return words[hashes >> np.uint64(65 - len(words).bit_length())] & bits == bits


def _two_bits(hashes: np.ndarray) -> np.ndarray:
    one = np.uint64(1)
    return one << (hashes & np.uint64(63)) | one << (hashes >> np.uint64(6) & np.uint64(63))
