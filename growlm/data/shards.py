"""Writing a stream of token ids as shards of bounded size, hashed block by block on the way."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import xxhash

from growlm.data.manifest import BLOCK_BYTES, Shard
from growlm.testing.faults import fault_point


class ShardWriter:
    """Writes `<folder>/<stem>-00000.bin`, `-00001.bin`, ...; `shards` describes them once it is closed."""

    def __init__(self, folder: Path, stem: str, dtype: np.dtype, shard_bytes: int) -> None:
        self.shards: list[Shard] = []
        self._folder, self._stem, self._dtype = folder, stem, dtype
        self._limit = shard_bytes - shard_bytes % dtype.itemsize
        self._pending = bytearray()
        self._blocks: list[str] = []
        self._written = 0
        self._file: BinaryIO | None = None

    def write(self, ids: np.ndarray) -> None:
        """Append token ids of the writer's dtype. Raises OSError."""
        self._pending += ids.tobytes()
        while len(self._pending) >= (size := min(BLOCK_BYTES, self._limit - self._written)):
            self._write_block(size)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._pending:
            self._write_block(len(self._pending))
        self._close()

    @property
    def _name(self) -> str:
        return f"{self._stem}-{len(self.shards):05d}.bin"

    def _write_block(self, size: int) -> None:
        fault_point("data.write")
        block = bytes(self._pending[:size])
        del self._pending[:size]
        if self._file is None:
            self._file = (self._folder / self._name).open("wb")
        self._file.write(block)
        self._blocks.append(xxhash.xxh3_64_hexdigest(block))
        self._written += size
        if self._written == self._limit:
            self._close()

    def _close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        tokens = self._written // self._dtype.itemsize
        self.shards.append(
            Shard(file=self._name, tokens=tokens, bytes=self._written, blocks=tuple(self._blocks))
        )
        self._file, self._blocks, self._written = None, [], 0
