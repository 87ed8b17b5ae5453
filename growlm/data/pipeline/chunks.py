"""A chunk: some tens of megabytes of clean text in one file, and tables of its documents beside it.

    NNNN.text           the UTF-8 of all segments, one after the other (of `tokens`: their ids as `<u4`)
    NNNN.docs.npy       a row of `DOC` per document
    NNNN.segments.npy   a row of `SEGMENT` per segment
    NNNN.TABLE.npy      keys to find copies by, (bands, documents) uint64, each band sorted
    NNNN.TABLE-of.npy   whose each key is, (bands, documents) uint32

Tables are `exact` (half of a document's hash), `near` (MinHash bands of running text) and `claims` (hashes
of what stands before the signals of propositions).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import xxhash

from growlm.data.pipeline.work import ChunkPlace, Work
from growlm.data.segments import Document, Segment

DOC = np.dtype(
    [
        ("high", "<u8"),
        ("low", "<u8"),
        ("group", "<u8"),
        ("stored", "<u4"),
        ("bytes", "<u4"),
        ("segments", "<u4"),
        ("license", "<u4"),
    ]
)
"""Both halves of a document's xxh3-128, the upper half of its group's; bytes in the file of text, and of its
text as UTF-8; segments; the number of its licence."""
SEGMENT = np.dtype([("bytes", "<u4"), ("learn", "?"), ("special", "?")])
EXACT, NEAR, CLAIMS = "exact", "near", "claims"

_DOC, _SEGMENT, _HASH = struct.Struct("<QQQIIII"), struct.Struct("<I??"), struct.Struct(">QQ")
_CLAIM = struct.Struct("<Q")
_DOCUMENTS = 1 << 18  # of one chunk, at most


class ChunkWriter:
    """Writes one chunk, whose tables are written on leaving; it is `full` when another should be begun."""

    def __init__(self, folder: Path, number: int, size: int) -> None:
        self._stem = folder / f"{number:04d}"
        self._text = self._stem.with_suffix(".text").open("wb")
        self._docs, self._segments = bytearray(), bytearray()
        self._near, self._claims = bytearray(), bytearray()
        self._limit = size
        self.documents = self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether it has the size of a chunk."""
        return self.bytes >= self._limit or self.documents >= _DOCUMENTS

    def add(self, document: Document, license_number: int, near: np.ndarray | None) -> None:
        """Append a document, with its band keys if it has any. Raises OSError."""
        texts = [segment.text.encode() for segment in document.segments]
        for text, segment in zip(texts, document.segments, strict=True):
            self._segments += _SEGMENT.pack(len(text), segment.learn, segment.special)
        data, group = b"".join(texts), document.group.encode()
        self._append(data, None if group == data else group, len(data), len(texts), license_number)
        if near is not None:
            self._near += near.tobytes()
        if document.segments[-1].special:
            self._claims += _CLAIM.pack(xxhash.xxh3_64_intdigest(b"".join(texts[:-1])))

    def add_ids(self, ids: np.ndarray, text_bytes: int, license_number: int) -> None:
        """Append a document of token ids, uint32, of a text of so many bytes. Raises OSError."""
        self._segments += _SEGMENT.pack(ids.nbytes, False, False)
        self._append(ids.tobytes(), None, text_bytes, 1, license_number)

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._text.close()
        if kind is None:
            self._write_tables()

    def _write_tables(self) -> None:
        docs = np.frombuffer(self._docs, DOC)
        np.save(f"{self._stem}.docs.npy", docs)
        np.save(f"{self._stem}.segments.npy", np.frombuffer(self._segments, SEGMENT))
        self._write_keys(EXACT, docs["high"][None])
        if self._near:
            self._write_keys(NEAR, np.frombuffer(self._near, "<u8").reshape(len(docs), -1).T)
        if self._claims:
            self._write_keys(CLAIMS, np.frombuffer(self._claims, "<u8")[None])

    def _append(
        self, data: bytes, group: bytes | None, text_bytes: int, segments: int, license_number: int
    ) -> None:
        high, low = _HASH.unpack(xxhash.xxh3_128_digest(data))
        of_group = high if group is None else xxhash.xxh3_128_intdigest(group) >> 64
        self._docs += _DOC.pack(high, low, of_group, len(data), text_bytes, segments, license_number)
        self._text.write(data)
        self.documents += 1
        self.bytes += len(data)

    def _write_keys(self, table: str, keys: np.ndarray) -> None:
        order = np.argsort(keys, axis=1, kind="stable")
        np.save(f"{self._stem}.{table}.npy", np.take_along_axis(keys, order, axis=1))
        np.save(f"{self._stem}.{table}-of.npy", order.astype(np.uint32))


class Chunk:
    """Reads one chunk."""

    def __init__(self, work: Work, place: ChunkPlace) -> None:
        self._stem = work.path("scan", place.task) / f"{place.number:04d}"

    def docs(self) -> np.ndarray:
        """Rows of `DOC`."""
        return np.load(f"{self._stem}.docs.npy", mmap_mode="r")

    def keys(self, table: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Sorted keys and the documents they are of, (bands, documents) each; None without such a table."""
        path = Path(f"{self._stem}.{table}.npy")
        if not path.exists():
            return None
        return np.load(path, mmap_mode="r"), np.load(f"{self._stem}.{table}-of.npy", mmap_mode="r")

    def documents(self, wanted: np.ndarray) -> Iterator[tuple[int, list[Segment]]]:
        """(number, segments) of the documents where `wanted` is true, in order."""
        for number, data, rows in self._each(wanted):
            start, segments = 0, []
            for size, learn, special in rows:
                segments.append(Segment(data[start : start + size].decode(), learn, special))
                start += size
            yield number, segments

    def ids(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(number, ids) of the documents of token ids where `wanted` is true, in order."""
        for number, data, _ in self._each(wanted):
            yield number, np.frombuffer(data, "<u4")

    def _each(self, wanted: np.ndarray) -> Iterator[tuple[int, bytes, list[tuple[int, bool, bool]]]]:
        docs = self.docs()
        segments = np.load(f"{self._stem}.segments.npy", mmap_mode="r")
        starts = np.concatenate([[0], np.cumsum(docs["stored"], dtype=np.int64)])
        first = np.concatenate([[0], np.cumsum(docs["segments"], dtype=np.int64)])
        with Path(f"{self._stem}.text").open("rb") as file:
            for number in np.flatnonzero(wanted).tolist():
                file.seek(int(starts[number]))
                data = file.read(int(docs["stored"][number]))
                yield number, data, segments[first[number] : first[number + 1]].tolist()
