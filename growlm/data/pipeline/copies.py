"""Phases 2 and 3: which documents are copies, near copies or contradictions of others. A bucket of keys each.

A bucket is a range of keys, so narrow that the keys of all chunks in it fit into memory, unless very many
documents share one key: some tens of bytes are held for each of them. A document is a
copy if an earlier one has the same key (of `exact`, the whole hash). Near copies need no union of pairs to
clusters: a document goes if in any of its bands it is not the first with its key. So each one that goes has
an earlier one like it (which may itself go for one before it), and the first of a cluster always stays.
Memory does not grow with the number of copies. Of propositions that are said to be true and false none stays.
"""

from __future__ import annotations

import numpy as np

from growlm.data.cleaning.near import BANDS
from growlm.data.pipeline.chunks import CLAIMS, EXACT, NEAR, Chunk
from growlm.data.pipeline.work import Work

BANDS_OF = {EXACT: 1, NEAR: BANDS, CLAIMS: 1}
_BYTES_PER_KEY = 64
"""A bucket has so many times fewer keys than a part has bytes: some tens of bytes are held for each."""


def buckets(work: Work) -> int:
    """Buckets per band."""
    keys = max(1, work.plan.part_bytes // _BYTES_PER_KEY)
    return max(1, -(-sum(chunk.documents for chunk in work.chunks) // keys))


def find_copies(work: Work, table: str, number: int) -> None:
    """Write the numbers of the documents that go by bucket `number`, ascending, to `ids.npy`."""
    count = buckets(work)
    band, bucket = divmod(number, count)
    low, high = (bucket << 64) // count, ((bucket + 1) << 64) // count - 1
    with work.commit(table, number) as folder:
        found = _keys(work, table, band, low, high)
        np.save(folder / "ids.npy", contradictions(*found) if table == CLAIMS else repeats(*found))


def copies_among(work: Work, table: str, first: int, end: int) -> np.ndarray:
    """Which of the documents [first, end) go by a table, (end - first,) bool."""
    found = np.zeros(end - first, bool)
    for number in range(BANDS_OF[table] * buckets(work)):
        ids = np.load(work.path(table, number) / "ids.npy", mmap_mode="r")
        start, stop = np.searchsorted(ids, [first, end])
        found[ids[start:stop] - first] = True
    return found


def _keys(
    work: Work, table: str, band: int, low: int, high: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys in [low, high] of all chunks, what else must be equal, and the documents' numbers."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for place in work.chunks:
        chunk = Chunk(work, place)
        if (loaded := chunk.keys(table)) is None:
            continue
        keys, owners = loaded[0][band], loaded[1][band]
        start = int(np.searchsorted(keys, np.uint64(low), "left"))
        stop = int(np.searchsorted(keys, np.uint64(high), "right"))
        mine = owners[start:stop]
        also = chunk.docs()["low"][mine] if table != NEAR else np.zeros(len(mine), np.uint64)
        found.append((np.array(keys[start:stop]), also, mine.astype(np.int64) + place.first))
    if not found:
        return np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64)
    keys, also, numbers = (np.concatenate(column) for column in zip(*found, strict=True))
    return keys, also, numbers


def repeats(keys: np.ndarray, also: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Of documents with equal keys all numbers but the smallest, ascending."""
    order = np.lexsort((numbers, also, keys))
    keys, also, numbers = keys[order], also[order], numbers[order]
    repeated = (keys[1:] == keys[:-1]) & (also[1:] == also[:-1])
    return np.sort(numbers[1:][repeated])


def contradictions(keys: np.ndarray, also: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The numbers of documents of equal keys that are not all the same, ascending."""
    order = np.lexsort((also, keys))
    keys, also, numbers = keys[order], also[order], numbers[order]
    both = (keys[1:] == keys[:-1]) & (also[1:] != also[:-1])
    return np.sort(numbers[np.isin(keys, keys[1:][both])])
