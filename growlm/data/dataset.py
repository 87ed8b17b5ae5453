"""A prepared folder, memory-mapped and read-only: tokens by position, every block verified before use."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from growlm.data.manifest import BLOCK_BYTES, MANIFEST, MARK, Kind, Manifest, Shard
from growlm.data.packing import Packing, pack
from growlm.errors import DataError

_SCAN_TOKENS = 1 << 20


class Sequences(NamedTuple):
    """Some sequences: (N, T) each."""

    tokens: np.ndarray
    """int64."""
    targets: np.ndarray
    """int64: the next tokens."""
    marked: np.ndarray
    """bool: the targets of the source's usual objective; all of running text."""
    real: np.ndarray
    """bool: targets that are no padding."""


class TokenDataset:
    """The token streams of a folder written by `growlm data prepare`.

    Each (source, split) is one stream: its shards one after the other. A block of a shard is hashed when
    it is first touched, so that damage is found before training sees it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.fingerprint: str = manifest.fingerprint
        self.tokenizer_hash: str = manifest.tokenizer.hash
        self.tokenizer_path: Path = path / manifest.tokenizer.file
        self.vocab_size: int = manifest.tokenizer.vocab_size
        self.sources: list[str] = list(manifest.sources)
        self._streams = {
            (name, split): _Stream(path, entry.shards, manifest.dtype_of(name))
            for name, source in manifest.sources.items()
            for split, entry in source.splits.items()
        }
        self._packing = cache(self._packed)

    @classmethod
    def open(cls, path: str | Path) -> TokenDataset:
        """Open a folder; checks the manifest, the tokenizer and the size of every shard, reads no tokens.

        Raises DataError: not a prepared folder, a changed tokenizer, a missing or cut shard.
        """
        path = Path(path)
        manifest = Manifest.load(path)
        _check_tokenizer(path, manifest)
        for shard in _shards(manifest):
            _check_size(path / shard.file, shard)
        return cls(path, manifest)

    def tokens(self, source: str, split: str) -> int:
        """Tokens of one stream; `split` is `train` or `valid`."""
        return self._streams[source, split].tokens

    def kind(self, source: str) -> Kind:
        """Whether a source is running text or examples."""
        return self.manifest.sources[source].kind

    def read(self, source: str, split: str, start: int, count: int) -> np.ndarray:
        """Stored ids [start, start + count) of a stream as (count,) in its dtype; do not write to it.

        Those of examples may have `MARK`. Raises DataError if a block of them is damaged.
        """
        return self._streams[source, split].read(start, count)

    def packing(self, source: str, split: str, unit: int) -> Packing:
        """The units of a stream of examples. Reads all of it, the first time. Raises DataError."""
        return self._packing(source, split, unit)

    def unit(self, source: str, split: str, start: int, count: int, unit: int) -> Sequences:
        """One unit of a stream of examples, (1, unit), padded with ends of documents that nothing learns.

        `start` and `count` are those of `packing`. Raises DataError.
        """
        stored = np.full(unit + 1, self.manifest.tokenizer.eos_id, np.uint32)
        stored[:count] = self.read(source, split, start, count)
        ids = (stored & np.uint32(MARK - 1)).astype(np.int64)[None]
        real = np.arange(unit)[None] < count - 1
        return Sequences(ids[:, :-1], ids[:, 1:], (stored >= MARK)[None, 1:], real)

    def validation(self, source: str, seq_len: int, tokens: int) -> Sequences:
        """Held-out sequences, always the same, spread over the stream.

        N is `tokens // seq_len`, at least 1, and at most what the stream has.
        Raises DataError if that is not even one sequence.
        """
        if self.kind(source) != "text":
            return self._held_out_examples(source, seq_len, tokens)
        available = (self.tokens(source, "valid") - 1) // seq_len
        if available < 1:
            raise DataError(
                f"The validation text of {source!r} is shorter than one sequence",
                where=str(self.path),
                why=f"{self.tokens(source, 'valid')} tokens; seq_len {seq_len} needs one more than itself",
                fix="prepare it again with more text or a larger --validation-share",
            )
        starts = [i * seq_len for i in _spread(available, tokens // seq_len)]
        rows = np.stack([self.read(source, "valid", start, seq_len + 1) for start in starts]).astype(np.int64)
        every = np.ones_like(rows[:, 1:], bool)
        return Sequences(rows[:, :-1], rows[:, 1:], every, every)

    def _held_out_examples(self, source: str, seq_len: int, tokens: int) -> Sequences:
        packing = self.packing(source, "valid", seq_len)
        if not len(packing.start):
            raise DataError(
                f"No held-out example of {source!r} fits in a sequence",
                where=str(self.path),
                why=f"seq_len is {seq_len}, and it has {packing.too_long} examples, all longer",
                fix="a larger seq_len, or prepare it again with more examples",
            )
        chosen = _spread(len(packing.start), tokens // seq_len)
        places = [(int(packing.start[i]), int(packing.tokens[i])) for i in chosen]
        units = [self.unit(source, "valid", *place, seq_len) for place in places]
        return Sequences(*(np.concatenate(parts) for parts in zip(*units, strict=True)))

    def _packed(self, source: str, split: str, unit: int) -> Packing:
        return pack(self._blocks(source, split), self.manifest.tokenizer.eos_id, unit)

    def _blocks(self, source: str, split: str) -> Iterator[np.ndarray]:
        total = self.tokens(source, split)
        for start in range(0, total, _SCAN_TOKENS):
            yield self.read(source, split, start, min(_SCAN_TOKENS, total - start))

    def verify(self) -> None:
        """Hash every block of every shard. Raises DataError for the first that is damaged."""
        for stream in self._streams.values():
            for shard in stream.shards:
                shard.check(0, shard.entry.bytes)


def _spread(available: int, wanted: int) -> list[int]:
    """Up to `wanted` numbers below `available`, at least one, at even distances."""
    count = min(available, max(1, wanted))
    return [i * available // count for i in range(count)]


class _Stream:
    """Shards that follow one another."""

    def __init__(self, folder: Path, entries: tuple[Shard, ...], dtype: np.dtype) -> None:
        self.shards = [_MappedShard(folder / entry.file, entry, dtype) for entry in entries]
        *self._starts, self.tokens = accumulate((entry.tokens for entry in entries), initial=0)

    def read(self, start: int, count: int) -> np.ndarray:
        if not 0 <= start <= start + count <= self.tokens:
            raise IndexError(f"tokens [{start}, {start + count}) of a stream of {self.tokens}")
        index = bisect_right(self._starts, start) - 1
        shard, first = self.shards[index], start - self._starts[index]
        inside = shard.entry.tokens - first
        if count <= inside:
            return shard.read(first, count)
        return np.concatenate([shard.read(first, inside), self.read(start + inside, count - inside)])


class _MappedShard:
    """One file, mapped when it is first read."""

    def __init__(self, path: Path, entry: Shard, dtype: np.dtype) -> None:
        self.entry = entry
        self._path, self._dtype = path, dtype
        self._ids: np.ndarray | None = None
        self._raw: memoryview = memoryview(b"")
        self._verified = bytearray(len(entry.blocks))

    def read(self, start: int, count: int) -> np.ndarray:
        size = self._dtype.itemsize
        self.check(start * size, (start + count) * size)
        assert self._ids is not None
        return self._ids[start : start + count]

    def check(self, start: int, end: int) -> None:
        """Verify the blocks that hold bytes [start, end), each once in the life of this object."""
        for block in range(start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1):
            if not self._verified[block]:
                self._verify(block)

    def _verify(self, block: int) -> None:
        if self._ids is None:
            self._map()
        start = block * BLOCK_BYTES
        if xxhash.xxh3_64_hexdigest(self._raw[start : start + BLOCK_BYTES]) != self.entry.blocks[block]:
            raise DataError(
                "A token shard is damaged",
                where=f"{self._path}: block {block}, bytes {start} to "
                f"{min(start + BLOCK_BYTES, self.entry.bytes)}",
                why="its hash is not the one in the manifest: flipped bits, or shards that were swapped",
                fix="restore the file from a copy, or prepare the folder again",
            )
        self._verified[block] = 1

    def _map(self) -> None:
        _check_size(self._path, self.entry)
        with self._path.open("rb") as file:
            self._raw = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._ids = np.frombuffer(self._raw, self._dtype)


def _shards(manifest: Manifest) -> list[Shard]:
    splits = [split for source in manifest.sources.values() for split in source.splits.values()]
    return [shard for split in splits for shard in split.shards]


def _check_size(path: Path, shard: Shard) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(
            "A token shard is missing",
            where=str(path),
            why=error.strerror or str(error),
            fix=f"restore it, or prepare the folder again; {MANIFEST} lists it",
        ) from error
    if size != shard.bytes:
        raise DataError(
            "A token shard is cut short" if size < shard.bytes else "A token shard is too long",
            where=str(path),
            why=f"it has {size} bytes; {MANIFEST} says {shard.bytes}",
            fix="restore the file from a copy, or prepare the folder again",
        )


def _check_tokenizer(path: Path, manifest: Manifest) -> None:
    file = path / manifest.tokenizer.file
    try:
        found = xxhash.xxh3_128_hexdigest(file.read_bytes())
    except OSError as error:
        raise DataError(
            "The tokenizer of a data folder is missing", where=str(file), why=error.strerror or str(error)
        ) from error
    if found != manifest.tokenizer.hash:
        raise DataError(
            "The tokenizer of a data folder is not the one that wrote its ids",
            where=str(file),
            why=f"its hash is {found}; {MANIFEST} says {manifest.tokenizer.hash}",
            fix="restore the file, or prepare the folder again with this tokenizer",
        )
