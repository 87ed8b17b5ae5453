"""What differs between two states of a prepared folder, by their manifests, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from growlm.data.manifest import BLOCK_BYTES, Manifest, Split

SHOWN = 6


def data_changes(then: Manifest, now: Manifest) -> list[str]:
    """What changed, most important first, at most `SHOWN` lines and one that counts the rest."""
    gone, new = (sorted(a.sources.keys() - b.sources) for a, b in ((then, now), (now, then)))
    found = [f"source {name} is gone" for name in gone] + [f"source {name} is new" for name in new]
    for name in (name for name in then.sources if name in now.sources):
        found += _of_source(name, then, now)
    if not found:
        found = ["no token; only what the manifest says about the preparation"]
    more = len(found) - SHOWN
    return found if more <= 0 else [*found[:SHOWN], f"and {more} more"]


def _of_source(name: str, then: Manifest, now: Manifest) -> Iterator[str]:
    old, new = then.sources[name], now.sources[name]
    if old.kind != new.kind:
        yield f"source {name} was {old.kind}, is {new.kind}"
    for split in sorted(old.splits.keys() | new.splits.keys()):
        before, after = (source.splits.get(split, _EMPTY) for source in (old, new))
        first = _first_difference(before, after, then.dtype_of(name))
        if first:
            yield f"{name} {split}: {before.tokens:,} tokens then, {after.tokens:,} now; {first}"


def _first_difference(then: Split, now: Split, dtype: np.dtype) -> str:
    """The first shard and block that is not as it was; empty if all are. Blocks are known by their hash."""
    token = 0
    for old, new in zip(then.shards, now.shards, strict=False):
        for block, (before, after) in enumerate(zip(old.blocks, new.blocks, strict=False)):
            if before != after:
                token += block * BLOCK_BYTES // dtype.itemsize
                return f"{new.file} differs from block {block} on (token {token:,} of the source)"
        if old.blocks != new.blocks:
            return f"{new.file} had {len(old.blocks):,} blocks, has {len(new.blocks):,}"
        token += old.tokens
    if len(then.shards) != len(now.shards):
        return f"{len(then.shards):,} shards then, {len(now.shards):,} now, the first ones the same"
    return ""


_EMPTY = Split(documents=0, bytes=0, tokens=0, shards=())
