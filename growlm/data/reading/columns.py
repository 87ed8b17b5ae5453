"""Rows of files that store columns: Parquet, and Arrow as Hugging Face data sets keep it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from growlm.data.extra import extra
from growlm.data.reading.files import File
from growlm.data.reading.rows import Extent, Row
from growlm.errors import DataError

_ROWS = 256  # read at a time


def parquet_rows(
    path: File, extent: Extent | None = None, columns: Sequence[str] | None = None
) -> Iterator[Row]:
    """The rows of a Parquet file, or of the row groups in `extent`.

    Of `columns` the first must be there, and the others are read where they are there; None reads all.

    Raises DataError: a damaged file, or one without the first column.
    """
    with _opened(path) as file:
        first, end = extent or (0, file.num_row_groups)
        names = _chosen(path, file.schema_arrow.names, columns)
        row = sum(file.metadata.row_group(i).num_rows for i in range(first))
        groups = list(range(first, end))
        for batch in file.iter_batches(batch_size=_ROWS, row_groups=groups, columns=names):
            for record in batch.to_pylist():
                yield f"{path}: row {row}", record
                row += 1


def parquet_extents(path: File, target_bytes: int) -> list[Extent]:
    """Neighbouring row groups of together about `target_bytes` in memory. Raises as `parquet_rows`."""
    with _opened(path) as file:
        sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)]
    found, start, size = [], 0, 0
    for index, more in enumerate(sizes):
        size += more
        if size >= target_bytes or index + 1 == len(sizes):
            found.append((start, index + 1))
            start, size = index + 1, 0
    return found


def arrow_rows(path: File, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of an Arrow file or stream; `columns` and errors as in `parquet_rows`."""
    ipc = extra("pyarrow.ipc", path)
    with _errors(path, "An Arrow file"), path.open("rb") as raw:
        is_file = raw.read(6) == b"ARROW1"
        raw.seek(0)
        reader = ipc.open_file(raw) if is_file else ipc.open_stream(raw)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
        names = _chosen(path, reader.schema.names, columns)
        row = 0
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS):
                for record in batch.slice(start, _ROWS).select(names).to_pylist():
                    yield f"{path}: row {row}", record
                    row += 1


@contextmanager
def _opened(path: File) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`."""
    parquet = extra("pyarrow.parquet", path)
    with _errors(path, "A Parquet file"), path.open("rb") as raw, parquet.ParquetFile(raw) as file:
        yield file


@contextmanager
def _errors(path: File, what: str) -> Iterator[None]:
    arrow = extra("pyarrow", path)
    try:
        yield
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{what} cannot be read", where=str(path), why=str(error)[:300], fix="fetch or write it again"
        ) from error


def _chosen(path: File, names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        return list(names)
    if columns[0] not in names:
        raise DataError(
            f"A file has no column `{columns[0]}`",
            where=str(path),
            why=f"its columns are {', '.join(names)}",
            fix=f"rename the column that holds the {columns[0]} to `{columns[0]}`",
        )
    return [name for name in columns if name in names]
