"""An even draw of a source's text in one pass and bounded memory, with other text held out."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import xxhash

from growlm.data.cleaning.normalise import normalise
from growlm.data.reading.bad_rows import BadRows
from growlm.data.reading.documents import pieces_of, read
from growlm.data.reading.extents import extents
from growlm.data.reading.files import File
from growlm.data.reading.rows import Extent
from growlm.data.reading.text import cut
from growlm.errors import DataError

HELD_BYTES = 2 << 20
"""Text of a source that is held out, to measure the tokenizer with."""
READ_BYTES = 4 << 30
"""Of a larger source, parts of its files are drawn first, and only they are read."""
_HELD_SHARE = 32  # one in so many pieces may be held out
_PART_BYTES = 64 << 20


@dataclass(frozen=True)
class Drawn:
    """What was drawn of a source; both lists hold whole documents, or pieces of long ones."""

    texts: list[str]
    held: list[str]
    """None of them is among `texts`."""
    bad_rows: int

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of `texts`."""
        return sum(len(text.encode()) for text in self.texts)

    def to_json(self) -> bytes:
        """All of it, to be read with `from_json`."""
        return json.dumps(asdict(self), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Drawn:
        """What `to_json` has written."""
        return cls(**json.loads(content))


def draw(
    name: str, files: Sequence[File], size: int, max_bad_rows: int, advance: Callable[[int], None]
) -> Drawn:
    """Draw about `size` bytes of a source's normalised text, no piece twice; all of it if it has less.

    A piece's 128-bit hash decides: its upper half whether it is held out, its lower half whether it is
    drawn. So the draw does not depend on the order of the files. `advance` is told the bytes read.

    Raises DataError: see `read`; more than `max_bad_rows` bad rows; no text, or but one piece of it.
    """
    bad = BadRows(max_bad_rows)
    texts, held = _Smallest(size), _Smallest(HELD_BYTES)
    for text in _pieces(files, bad):
        advance(len(data := text.encode()))
        upper, lower = divmod(xxhash.xxh3_128_intdigest(data), 1 << 64)
        (held if upper < (1 << 64) // _HELD_SHARE else texts).add(lower, len(data), text)
    found, out = texts.items(), held.items()
    if not out:  # a small source
        out = [found.pop()] if found else []
    if not found:
        raise DataError(
            f"Source {name!r} has too little text to train a tokenizer on",
            where=", ".join(map(str, files[:3])),
            why="one piece of it is held out, and nothing is left",
            fix="check the path, or leave the source out",
        )
    return Drawn(found, out, len(bad.rows))


def _pieces(files: Iterable[File], bad: BadRows) -> Iterator[str]:
    """Normalised text with visible characters, in pieces that are not long; an only document is cut up."""
    documents = (document for file, extent in _parts(files) for document in read(file, extent, bad.add))
    first, second = next(documents, None), next(documents, None)
    if first is None:
        return
    for document in pieces_of(first) if second is None else chain([first, second], documents):
        for piece in cut([normalise(document.text)]):
            if piece and not piece.isspace():
                yield piece


def _parts(files: Iterable[File]) -> list[tuple[File, Extent | None]]:
    """What to read: everything, or of a large source an even draw of parts of about `READ_BYTES` together."""
    sized = [(file, extent, size) for file in files for extent, size in _extents(file)]
    if sum(size for *_, size in sized) > READ_BYTES:
        sized.sort(key=lambda part: xxhash.xxh3_64_intdigest(f"{part[0].name}:{part[1]}".encode()))
    parts, total = [], 0
    for file, extent, size in sized:
        if total < READ_BYTES:
            parts.append((file, extent))
        total += size
    return parts


def _extents(file: File) -> list[tuple[Extent | None, int]]:
    """The parts of a file, each with its bytes on the disk."""
    parts = extents(file, _PART_BYTES)
    size = file.stat().st_size
    return [(part, size // len(parts)) for part in parts]


class _Smallest:
    """The pieces with the smallest hashes that fit a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._heap: list[tuple[int, int, str]] = []  # (-hash, bytes, text): the largest hash first
        self._keys: set[int] = set()

    def add(self, key: int, size: int, text: str) -> None:
        if key in self._keys or (self._size >= self._limit and key >= -self._heap[0][0]):
            return
        heapq.heappush(self._heap, (-key, size, text))
        self._keys.add(key)
        self._size += size
        while self._size - self._heap[0][1] >= self._limit:
            largest, size, _ = heapq.heappop(self._heap)
            self._keys.remove(-largest)
            self._size -= size

    def items(self) -> list[str]:
        """By ascending hash."""
        return [text for *_, text in sorted(self._heap, reverse=True)]
