"""Tensor files: valid safetensors, written and read by rows, so that memory stays bounded at any size.

A file is an 8-byte little-endian length, a JSON header of that length, and the tensors one after another.
The safetensors library reads these files and this module reads its files; only the hashes are ours.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import xxhash

from growlm.checkpoint.disk import CHUNK, disk_errors, fsync_fd, hash_file, start_writeback, write_all
from growlm.errors import CheckpointError
from growlm.testing.faults import fault_point

__all__ = ["DTYPES", "FileInfo", "TensorInfo", "TensorReader", "TensorWriter", "hash_file", "hash_tensor"]

DTYPES = {
    "F32": torch.float32,
    "F64": torch.float64,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The safetensors name of every dtype that a checkpoint may hold."""

SEND_BYTES = 32 << 20  # written to the disk in the background, so that the sync at the end is short

CONVERT = "convert the model to BF16, F16 or F32 first; quantised weights cannot be read"
_VERIFY = "`growlm ckpt verify RUN` names every damaged file; the newest whole checkpoint is used by itself"
_EMPTY = xxhash.xxh3_128_hexdigest(b"")
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_HEADER_CAP = 16 << 20  # some 100,000 tensors; a hostile header must not eat the memory
_COUNT_CAP = 1 << 48


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: `offset` and `bytes` count from the start of the file.

    `xxh3` is the hash of its bytes; empty when the info comes from a file, whose header holds no hashes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int
    xxh3: str = ""


@dataclass(frozen=True)
class FileInfo:
    """A finished tensor file: its size, the xxh3-128 of all of it, and its tensors."""

    bytes: int
    xxh3: str
    tensors: dict[str, TensorInfo]


class TensorWriter:
    """Writes one tensor file: the header at once, then the tensors in order, any number of rows at a time.

    `entries` are (name, dtype, shape); wider dtypes come first, so that every tensor is aligned. A row is
    an index of dimension 0; a scalar is one row. Empty tensors are not written at all. As a context
    manager it closes at the end and gives up, without a complete file, on an exception.

    `on_bytes` is told how many bytes were written each time.

    Raises:
        DiskError: the file cannot be created, written or synced.
        ValueError: entries or rows that do not fit; a mistake in the calling code.
    """

    def __init__(
        self,
        path: Path,
        entries: Sequence[tuple[str, torch.dtype, tuple[int, ...]]],
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._path, self._on_bytes = path, on_bytes
        header, tensors, self._size = _layout(entries)
        self._tensors = {name: replace(tensor, xxh3=_EMPTY) for name, tensor in tensors.items()}
        self._queue = [name for name, tensor in reversed(tensors.items()) if tensor.bytes]
        self._unsent = 0  # bytes that the disk has not been asked to write yet
        self._done = 0  # bytes of the tensor at the end of the queue
        self._file_hash, self._tensor_hash = xxhash.xxh3_128(header), xxhash.xxh3_128()
        self._info: FileInfo | None = None
        with disk_errors(path, self._size):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            write_all(self._fd, header)

    def write(self, rows: torch.Tensor) -> None:
        """Append the next rows, shape (n, *shape[1:]) or () for a scalar, of the current tensor.

        Contiguous memory is written as it lies; anything else is copied chunk by chunk.
        """
        if rows.numel() == 0:
            return
        self._check(rows)
        rows = rows.detach().reshape(1) if rows.dim() == 0 else rows.detach()
        step = max(1, CHUNK // (rows[0].numel() * rows.element_size()))
        for start in range(0, rows.shape[0], step):
            self._append(_memory(rows[start : start + step].to("cpu").contiguous()))
        name = self._queue[-1]
        if self._done == self._tensors[name].bytes:
            self._tensors[name] = replace(self._tensors[name], xxh3=self._tensor_hash.hexdigest())
            self._queue.pop()
            self._done, self._tensor_hash = 0, xxhash.xxh3_128()

    def close(self) -> FileInfo:
        """Sync the file to disk. Calling it again returns the same info."""
        if self._info is None:
            if self._queue:
                raise ValueError(f"{self._path.name}: {self._queue[-1]} is not complete")
            with disk_errors(self._path, self._size):
                fsync_fd(self._fd)
            self.abandon()
            self._info = FileInfo(self._size, self._file_hash.hexdigest(), self._tensors)
        return self._info

    def abandon(self) -> None:
        """Let go of the file, complete or not."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _check(self, rows: torch.Tensor) -> None:
        if not self._queue:
            raise ValueError(f"{self._path.name}: every tensor is complete; got {tuple(rows.shape)} more")
        name = self._queue[-1]
        tensor = self._tensors[name]
        size = rows.numel() * rows.element_size()
        fits = rows.dim() == len(tensor.shape) and tuple(rows.shape[1:]) == tensor.shape[1:]
        if rows.dtype != DTYPES[tensor.dtype] or not fits or self._done + size > tensor.bytes:
            left = tensor.bytes - self._done
            raise ValueError(
                f"{self._path.name}: {name} is {tensor.dtype} {tensor.shape} with {left} bytes to go; "
                f"got {rows.dtype} {tuple(rows.shape)}"
            )

    def _append(self, data: memoryview) -> None:
        self._file_hash.update(data)
        self._tensor_hash.update(data)
        with disk_errors(self._path, self._size):
            fault_point("checkpoint.write")
            write_all(self._fd, data)
        self._done += len(data)
        self._on_bytes(len(data))
        self._unsent += len(data)
        if self._unsent >= SEND_BYTES:
            start_writeback(self._fd)
            self._unsent = 0


class TensorReader:
    """Reads a tensor file by rows, after a strict check of its header. A context manager.

    Rows are read into fresh memory, never mapped: memory use is what the caller holds. `fix` is the advice
    for a damaged file.

    Raises:
        CheckpointError: the file is missing, unreadable, or not a well-formed safetensors file.
    """

    def __init__(self, path: Path, fix: str = _VERIFY) -> None:
        self.path, self._fix = path, fix
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CheckpointError(
                "A tensor file cannot be opened", where=str(path), why=str(error), fix=fix
            ) from error
        try:
            self._tensors = _parse(self._fd)
        except _UnknownDtypeError as error:
            os.close(self._fd)
            raise CheckpointError(
                "A tensor is of a kind that cannot be read", where=str(path), why=str(error), fix=CONVERT
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            os.close(self._fd)
            raise self._damaged(str(error)) from error

    @property
    def names(self) -> list[str]:
        """The tensors, in the order of their bytes."""
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Dtype, shape and place of one tensor. Raises KeyError if there is none of this name."""
        return self._tensors[name]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows `start` to `stop` (all by default) of a tensor, on the CPU; a scalar is read whole.

        Raises:
            CheckpointError: the file ends early or the disk fails.
            IndexError: the tensor has no such rows.
        """
        tensor = self._tensors[name]
        rows = tensor.shape[0] if tensor.shape else 1
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise IndexError(f"{name} has {rows} rows, not {start}:{stop}")
        shape = (stop - start, *tensor.shape[1:]) if tensor.shape else ()
        out = torch.empty(shape, dtype=DTYPES[tensor.dtype])
        if out.numel():
            self.fill(name, out.view(stop - start, -1), start)
        return out

    def fill(self, name: str, out: torch.Tensor, row: int = 0, begin: int = 0) -> None:
        """Read elements `begin` to `begin` + m of the rows from `row` on into `out`, shape (n, m), not empty.

        A row is everything at one index of dimension 0. No other bytes are read; `out` is of the tensor's
        dtype and on the CPU, its rows need not lie next to each other.

        Raises:
            CheckpointError: the file ends early or the disk fails.
        """
        tensor = self._tensors[name]
        pitch = tensor.bytes // (tensor.shape[0] if tensor.shape else 1)
        offset = tensor.offset + row * pitch + begin * out.element_size()
        in_one = out.is_contiguous() and (len(out) == 1 or out[0].nbytes == pitch)
        try:
            for index, line in enumerate([_memory(out)] if in_one else _lines(out)):
                _read_exactly(self._fd, line, offset + index * pitch)
        except (OSError, ValueError) as error:
            raise self._damaged(f"{name}: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError("A tensor file is damaged", where=str(self.path), why=why, fix=self._fix)


def hash_tensor(tensor: torch.Tensor) -> str:
    """xxh3-128 of the bytes of a CPU tensor, as 32 hex digits: what the manifest holds.

    It is contiguous, or of two dimensions with contiguous rows.
    """
    digest = xxhash.xxh3_128()
    if tensor.numel():
        for line in [_memory(tensor)] if tensor.is_contiguous() else _lines(tensor):
            digest.update(line)
    return digest.hexdigest()


class _UnknownDtypeError(ValueError):
    """A tensor is stored in a way that GrowLM does not know."""


def _layout(
    entries: Sequence[tuple[str, torch.dtype, tuple[int, ...]]],
) -> tuple[bytes, dict[str, TensorInfo], int]:
    """The header's bytes, the tensors with offsets from the start of the file, and the file's size."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, dtype, shape in entries:
        if name in header or dtype not in _CODES or begin % dtype.itemsize:
            raise ValueError(f"{name} ({dtype}): names differ, dtypes are known, wider dtypes come first")
        end = begin + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, _tensors(header, 8 + len(text)), 8 + len(text) + begin


def _tensors(header: dict[str, Any], data: int) -> dict[str, TensorInfo]:
    """Every tensor of a checked header, in the order of their bytes; `data` is where the first begins."""
    named = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    return {
        name: TensorInfo(
            entry["dtype"],
            tuple(entry["shape"]),
            data + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in sorted(named, key=lambda item: item[1]["data_offsets"])
    }


def _parse(fd: int) -> dict[str, TensorInfo]:
    """Read and check a header. Raises ValueError with the rule that is broken."""
    size = os.fstat(fd).st_size
    length = int.from_bytes(os.pread(fd, 8, 0), "little")
    if size < 8 or length > min(_HEADER_CAP, size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    text = bytearray(length)
    _read_exactly(fd, memoryview(text), 8)
    header = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    for name, entry in header.items():
        check = _check_metadata if name == "__metadata__" else _check_entry
        check(name, entry)
    tensors = _tensors(header, 8 + length)
    end = 8 + length
    for name, tensor in tensors.items():
        if tensor.offset != end:
            raise ValueError(f"{name} begins at byte {tensor.offset}, not at {end} where the last one ends")
        end += tensor.bytes
    if end != size:
        raise ValueError(f"the tensors end at byte {end}, the file at {size}")
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    return unique


def _check_metadata(name: str, entry: Any) -> None:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError(f"{name} is not a table of strings")


def _check_entry(name: str, entry: Any) -> None:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} does not consist of dtype, shape and data_offsets")
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(dtype, str):
        raise ValueError(f"{name} has a dtype that is not a name")
    if dtype not in DTYPES:
        raise _UnknownDtypeError(f"{name} has dtype {dtype!r}; known are {', '.join(DTYPES)}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < _COUNT_CAP for n in numbers):
            raise ValueError(f"{name} has a shape or offsets that are not lists of counts")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{name} has offsets {offsets}, which do not fit {dtype} {shape}")


def _memory(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _lines(tensor: torch.Tensor) -> Iterator[memoryview]:
    """The bytes of every row of a CPU tensor of two dimensions with contiguous rows, without a copy."""
    return (row.data for row in tensor.view(torch.uint8).numpy())


def _read_exactly(fd: int, out: memoryview, offset: int) -> None:
    """Fill `out` from the file. Raises ValueError if the file ends first."""
    while out:
        count = os.preadv(fd, [out], offset)
        if count == 0:
            raise ValueError(f"the file ends at byte {offset}, {len(out)} bytes early")
        out, offset = out[count:], offset + count
