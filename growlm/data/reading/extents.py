"""Files in parts that can be read each on its own, at the same time."""

from __future__ import annotations

from itertools import pairwise

from growlm.data.reading.columns import parquet_extents
from growlm.data.reading.files import File, kind
from growlm.data.reading.rows import Extent


def extents(path: File, target_bytes: int) -> list[Extent | None]:
    """Parts of a file of about `target_bytes`, in order: together all of it, none overlaps.

    None stands for the whole: text, Arrow, and compressed files are read from their beginning.
    Raises DataError: a damaged Parquet file.
    """
    if path.suffix == ".jsonl":
        size = path.stat().st_size
        count = max(1, round(size / target_bytes))
        edges = [size * i // count for i in range(count + 1)]
        return list(pairwise(edges))
    if kind(path) == "parquet":
        return list(parquet_extents(path, target_bytes))
    return [None]
