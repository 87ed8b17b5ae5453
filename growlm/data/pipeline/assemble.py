"""Phase 7: shards of bounded size out of the tokens of many chunks, hashed block by block on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from growlm.data.manifest import BLOCK_BYTES, Shard
from growlm.data.pipeline.work import Work, sync
from growlm.testing.faults import fault_point

OUT = "out"
"""Folder, in the work folder, that becomes the prepared one."""


class Slice(NamedTuple):
    """Bytes [start, end) of the tokens of a chunk."""

    chunk: int
    start: int
    end: int


class ShardPlan(NamedTuple):
    """A shard: which file, and what goes into it."""

    source: str
    split: str
    number: int
    slices: Sequence[Slice]

    @property
    def name(self) -> str:
        """The file in the prepared folder."""
        return f"{self.source}/{self.split}-{self.number:05d}.bin"


def plan_shards(
    source: str, split: str, tokens: Iterable[tuple[int, int]], dtype: np.dtype, shard_bytes: int
) -> Iterator[ShardPlan]:
    """Cut a stream, given as (chunk, tokens) in order, into shards of at most `shard_bytes`."""
    limit = shard_bytes - shard_bytes % dtype.itemsize
    slices: list[Slice] = []
    room, number = limit, 0
    for chunk, count in tokens:
        start, size = 0, count * dtype.itemsize
        while start < size:
            end = min(size, start + room)
            slices.append(Slice(chunk, start, end))
            room -= end - start
            start = end
            if not room:
                yield ShardPlan(source, split, number, slices)
                slices, room, number = [], limit, number + 1
    if slices:
        yield ShardPlan(source, split, number, slices)


def assemble(work: Work, number: int, advance: Callable[[int], None]) -> None:
    """Write shard `number` into the folder that becomes the prepared one. Raises OSError."""
    source, split, index, slices = work.read(f"shards/{number:06d}")
    plan = ShardPlan(source, split, index, [Slice(*piece) for piece in slices])
    target = work.folder / OUT / plan.name
    target.parent.mkdir(parents=True, exist_ok=True)
    blocks, size = [], 0
    with work.commit("assemble", number) as folder:
        with (folder / "shard").open("wb") as file:
            for block in _blocks(work, plan):
                fault_point("data.write")
                file.write(block)
                blocks.append(xxhash.xxh3_64_hexdigest(block))
                size += len(block)
                advance(len(block))
        sync(folder / "shard")
        (folder / "shard").rename(target)
        sync(target.parent)
        (folder / "result.json").write_text(json.dumps({"file": plan.name, "bytes": size, "blocks": blocks}))


def shard_of(work: Work, number: int, dtype: np.dtype) -> Shard:
    """The manifest's entry of a shard that is assembled."""
    result = work.result("assemble", number)
    return Shard(tokens=result["bytes"] // dtype.itemsize, **result)


def _blocks(work: Work, plan: ShardPlan) -> Iterator[bytes]:
    """The bytes of a shard in blocks of `BLOCK_BYTES`; the last may be shorter."""
    pending = bytearray()
    for piece in plan.slices:
        with (work.path("encode", piece.chunk) / f"{plan.split}.bin").open("rb") as file:
            file.seek(piece.start)
            left = piece.end - piece.start
            while left and (data := file.read(min(left, BLOCK_BYTES))):
                left -= len(data)
                pending += data
                while len(pending) >= BLOCK_BYTES:
                    yield bytes(pending[:BLOCK_BYTES])
                    del pending[:BLOCK_BYTES]
    if pending:
        yield bytes(pending)
