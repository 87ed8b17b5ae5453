"""Tensors read from the pieces they are stored in: any rows and columns, and no other byte."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from growlm.checkpoint.format import DTYPES, TensorInfo, TensorReader, hash_tensor
from growlm.checkpoint.manifest import PieceRecord, TensorRecord
from growlm.checkpoint.tiling import overlap, rows_and_columns
from growlm.errors import CheckpointError

OPEN_FILES = 200
"""At most so many files are held open, however many ranks wrote; a process may have some 1000."""


class StoredTensors:
    """Tensors in a folder of tensor files, by the records of a manifest; a context manager.

    Files are opened when they are first needed; then their header must be what the records say.
    """

    def __init__(self, folder: Path, records: Mapping[str, TensorRecord]) -> None:
        self._folder, self._records = folder, records
        self._readers: dict[str, TensorReader] = {}

    def dtype(self, name: str) -> torch.dtype:
        """How a tensor is stored. Raises KeyError if there is none of this name."""
        return DTYPES[self._records[name].dtype]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the whole tensor. Raises KeyError if there is none of this name."""
        return tuple(self._records[name].shape)

    def read(
        self, name: str, start: int = 0, stop: int | None = None, columns: tuple[int, int] | None = None
    ) -> Tensor:
        """Rows `start` to `stop` of a tensor, and of them `columns`, [first, end) of dimension 1; on the CPU.

        All of it by default; a scalar is one row. What is read of a piece as a whole is checked against
        the hash of the piece.

        Raises:
            CheckpointError: a file is missing, short, or not what was saved.
            IndexError: the tensor has no such rows or columns.
            KeyError: there is no such tensor.
        """
        record = self._records[name]
        (_, n_rows), (_, n_columns) = rows_and_columns([0] * len(record.shape), record.shape)
        (top, bottom), (left, right) = rows, columns = (
            (start, n_rows if stop is None else stop),
            columns or (0, n_columns),
        )
        if not (0 <= top <= bottom <= n_rows and 0 <= left <= right <= n_columns):
            raise IndexError(f"{name} has {n_rows} rows and {n_columns} columns, not {rows} and {columns}")
        inner = math.prod(record.shape[2:])
        shape = (bottom - top, right - left, *record.shape[2:])
        out = torch.empty(shape[: len(record.shape)], dtype=DTYPES[record.dtype])
        table = out.view(bottom - top, (right - left) * inner)
        for piece in record.pieces:
            in_rows, in_columns = rows_and_columns(piece.start, piece.shape)
            (a, b), (c, d) = overlap(rows, in_rows), overlap(columns, in_columns)
            if a < b and c < d:
                part = table[a - top : b - top, (c - left) * inner : (d - left) * inner]
                self._fill(part, name, piece, a - in_rows[0], (c - in_columns[0]) * inner)
        return out

    def close(self) -> None:
        """Let go of the files."""
        while self._readers:
            self._readers.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self, part: Tensor, name: str, piece: PieceRecord, row: int, begin: int) -> None:
        """Read some of a piece; all of it is hashed as it lies in memory."""
        if part.numel():
            reader = self._reader(piece.file)
            reader.fill(name, part, row, begin)
            if part.nbytes == piece.bytes and hash_tensor(part) != piece.xxh3:
                raise CheckpointError(f"{name} is not what was saved", where=str(reader.path))

    def _reader(self, file: str) -> TensorReader:
        """An open file. Raises CheckpointError if it does not hold what the records say."""
        if file not in self._readers:
            reader = TensorReader(self._folder / file)
            infos = ((name, reader.info(name)) for name in reader.names)
            if self._expected[file] != {name: info for name, info in infos if info.bytes}:
                reader.close()
                raise CheckpointError(
                    "A tensor file does not hold what the manifest says", where=str(reader.path)
                )
            if len(self._readers) >= OPEN_FILES:
                self._readers.pop(next(iter(self._readers))).close()
            self._readers[file] = reader
        return self._readers[file]

    @cached_property
    def _expected(self) -> dict[str, dict[str, TensorInfo]]:
        """What every file has to hold, without hashes and empty tensors."""
        files: dict[str, dict[str, TensorInfo]] = {}
        for name, tensor in self._records.items():
            for piece in tensor.pieces:
                if piece.bytes:
                    info = TensorInfo(tensor.dtype, tuple(piece.shape), piece.offset, piece.bytes)
                    files.setdefault(piece.file, {})[name] = info
        return files
