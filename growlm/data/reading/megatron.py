"""Megatron's indexed datasets: x.bin holds token ids, x.idx where sequences and documents begin.

The layout is that of Megatron-LM's `core/datasets/indexed_dataset.py`, version 1, little-endian: the nine
bytes MMIDIDX 0 0, the version (u64), a code for the type of the ids (u8), the numbers of sequences and of
document bounds (u64 each), the length of each sequence in tokens (i32), its first byte in x.bin (i64), and
the first sequence of each document, ended by the number of sequences (i64). What may follow is not needed.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from growlm.errors import DataError

_HEADER = struct.Struct("<9sQBQQ")
_MAGIC, _VERSION = b"MMIDIDX\0\0", 1
_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


class MegatronFile:
    """See `tokens.TokenFile`."""

    def __init__(self, path: Path) -> None:
        """`path` is the .bin. Raises DataError: files that are missing or do not fit together."""
        self.path = path
        index = path.with_suffix(".idx")
        try:
            with index.open("rb") as file:
                head = file.read(_HEADER.size)
            magic, version, code, sequences, bounds = _HEADER.unpack(head)
            if magic != _MAGIC or version != _VERSION or code not in _TYPES or not bounds:
                raise ValueError(f"its head is {head[:18].hex(' ')}, not that of version 1")
            dtype = np.dtype(_TYPES[code])
            at = _HEADER.size + 4 * sequences
            self._bytes = np.memmap(index, "<i8", "r", at, (sequences,)) if sequences else np.zeros(0, int)
            self._first = np.memmap(index, "<i8", "r", at + 8 * sequences, (bounds,))
            size = path.stat().st_size
            self.ids: np.ndarray = np.memmap(path, dtype, "r") if size else np.zeros(0, dtype)
            self._sequences, self.documents = sequences, bounds - 1
            self._check(index, size)
        except (OSError, ValueError, struct.error) as error:
            raise DataError(
                "A token file of Megatron cannot be read",
                where=str(path),
                why=f"{index.name}: {error}",
                fix="give x.bin with its x.idx beside it, or write both again",
            ) from error

    def bounds(self, first: int, end: int) -> np.ndarray:
        """See `tokens.TokenFile`."""
        sequences = self._first[first : end + 1]
        known = np.minimum(sequences, max(0, self._sequences - 1))
        starts = self._bytes[known] if self._sequences else np.zeros(len(sequences), np.int64)
        return np.where(sequences < self._sequences, starts // self.ids.itemsize, len(self.ids))

    def _check(self, index: Path, size: int) -> None:
        """Raise ValueError unless the documents are all sequences, and the sequences all of the .bin."""
        if self._first[0] != 0 or self._first[-1] != self._sequences:
            raise ValueError("its documents are not all of its sequences")
        if self._sequences:
            at = _HEADER.size + 4 * (self._sequences - 1)
            last = int(np.memmap(index, "<i4", "r", at, (1,))[0])
            end = int(self._bytes[-1]) + last * self.ids.itemsize
            if end != size:
                raise ValueError(f"it is of a file of {end} bytes; {self.path.name} has {size}")
