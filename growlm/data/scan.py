"""The first pass over the text: duplicates, the train/validation split, a sample for the tokenizer.

A document's 128-bit hash decides everything: its upper half the split, its lower half the sample. So
nothing depends on the order of files, and 16 bytes per document is all that is kept of a source.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from growlm.data.progress import Progress
from growlm.data.reading.documents import documents
from growlm.errors import DataError

DROP, TRAIN, VALID = 0, 1, 2
"""Fates of a document; dropped are duplicates and those without any visible character."""
SAMPLE_BYTES = 32 << 20
"""Text that the tokenizer is trained on, of all sources together."""
_SAMPLE_FLOOR = 4 << 20
_SAMPLE_PIECE = 1 << 16  # characters of one document that the sample takes at most


@dataclass
class Scanned:
    """One source after the first pass."""

    name: str
    files: list[Path]
    hashes: np.ndarray
    """(documents, 2) uint64: upper and lower half of each document's hash, in order."""
    sample: list[tuple[int, int, str]]
    """(upper half of the hash, bytes, text) of documents drawn evenly, by ascending lower half."""
    bytes: int
    empty: int
    fates: np.ndarray
    """(documents,) uint8; all DROP until `decide`."""
    duplicates: int = 0


def scan(name: str, files: list[Path], sample_bytes: int, progress: Progress) -> Scanned:
    """Read a source once. Raises DataError for whatever is wrong with its text, or if there is none."""
    hashes, empty, size, sample = bytearray(), [], 0, _Sample(sample_bytes)
    with progress.task(f"read {name}") as advance:
        for index, document in enumerate(documents(files)):
            text = document.text
            data = text.encode()
            hashes += (key := xxhash.xxh3_128_digest(data))
            if not text or text.isspace():
                empty.append(index)
            else:
                sample.add(key, text)
            size += len(data)
            advance(len(data))
    pairs = np.frombuffer(hashes, ">u8").astype(np.uint64).reshape(-1, 2)
    if len(pairs) == len(empty):
        raise DataError(
            f"Source {name!r} is empty",
            where=", ".join(map(str, files[:3])),
            why="no document has a visible character",
            fix="check the path, or leave the source out",
        )
    fates = np.full(len(pairs), TRAIN, np.uint8)
    fates[empty] = DROP
    return Scanned(name, files, pairs, sample.items(), size, len(empty), fates)


def decide(sources: Sequence[Scanned], validation_share: float) -> None:
    """Set every document's fate; of equal documents in all sources the first stays.

    A source whose share gives it no validation document takes the one with the smallest hash, and
    one that would train on nothing keeps the one with the largest.

    Raises:
        DataError: a source has fewer than two different documents left.
    """
    hashes = np.concatenate([source.hashes for source in sources])
    order = np.lexsort((np.arange(len(hashes)), hashes[:, 1], hashes[:, 0]))
    repeats = np.zeros(len(hashes), bool)
    repeats[order[1:]] = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    start = 0
    for source in sources:
        kept = source.fates != DROP
        repeated = repeats[start : (start := start + len(kept))] & kept
        source.duplicates = int(repeated.sum())
        source.fates[repeated] = DROP
        _split(source, validation_share)


def _split(source: Scanned, share: float) -> None:
    kept = np.flatnonzero(source.fates != DROP)
    if len(kept) < 2:
        raise DataError(
            f"Source {source.name!r} has too few different documents: {len(kept)}",
            where=", ".join(map(str, source.files[:3])),
            why="training and validation need one each; "
            f"{source.duplicates} are copies of others and {source.empty} are empty",
            fix="add text to the source, or leave it out",
        )
    upper = source.hashes[kept, 0]
    valid = upper < np.uint64(int(share * 2.0**64))
    valid[np.argmin(upper)] = True
    valid[np.argmax(upper)] = False
    source.fates[kept[valid]] = VALID


def tokenizer_sample(sources: Sequence[Scanned]) -> Iterator[str]:
    """Training text of the tokenizer: as many bytes of every source, no copies, no validation document.

    As many as the smallest source has, but at least 4 MiB of each source that has them.
    """
    sizes = [sum(size for _, size, _ in source.sample) for source in sources]
    share = min(SAMPLE_BYTES // len(sources), max(min(sizes), _SAMPLE_FLOOR))
    for source in sources:
        valid = set(source.hashes[source.fates == VALID, 0].tolist())
        taken = 0
        for upper, size, text in source.sample:
            if taken < share and upper not in valid:
                taken += size
                yield text


class _Sample:
    """The documents with the smallest hashes that fit a number of bytes: an even draw in one pass."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._heap: list[tuple[int, int, int, str]] = []  # largest lower half of the hash first
        self._keys: set[int] = set()

    def add(self, key: bytes, text: str) -> None:
        upper, lower = int.from_bytes(key[:8]), int.from_bytes(key[8:])
        full = self.size >= self.limit
        if lower in self._keys or (full and lower >= -self._heap[0][0]):
            return
        text = text[:_SAMPLE_PIECE]
        size = len(text.encode())
        heapq.heappush(self._heap, (-lower, upper, size, text))
        self._keys.add(lower)
        self.size += size
        while self.size - self._heap[0][2] >= self.limit:
            largest = heapq.heappop(self._heap)
            self._keys.remove(-largest[0])
            self.size -= largest[2]

    def items(self) -> list[tuple[int, int, str]]:
        return [(upper, size, text) for _, upper, size, text in sorted(self._heap, reverse=True)]
