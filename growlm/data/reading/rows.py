"""Rows: JSON objects, one a line of a file, and what becomes of those that are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from growlm.data.reading.files import File, open_bytes
from growlm.data.reading.text import undecodable
from growlm.errors import DataError

LINE_BYTES = 1 << 27
"""Longest line of a JSONL file: one document is held in memory, several times over."""
START_CHARS = 200
"""Of a bad row this many characters are shown."""

Row = tuple[str, dict[str, Any]]
"""Where it is, for messages, and what it holds."""
Extent = tuple[int, int]
"""A part [start, end) of a file: bytes of a .jsonl (the lines that begin there), row groups of Parquet."""
OnBad = Callable[[DataError, str], None]
"""Is told the error of a bad row and the row's beginning; if it returns, reading goes on after the row."""


def refuse(error: DataError, start: str) -> None:  # noqa: ARG001
    """The `OnBad` that stops at the first bad row."""
    raise error


def jsonl_rows(path: File, extent: Extent | None = None, on_bad: OnBad = refuse) -> Iterator[Row]:
    """The JSON objects of a file, or of the lines that begin in `extent` (of an uncompressed one).

    Bad rows: a line that is no JSON object, is not UTF-8, or is longer than `LINE_BYTES`.
    Raises DataError: a file that is unreadable or damaged.
    """
    with open_bytes(path) as file:
        for where, offset, line in _lines(file, path, extent):
            try:
                record = _record(line, where, offset)
            except DataError as error:
                on_bad(error, line[: 4 * START_CHARS].decode("utf-8", "replace").strip()[:START_CHARS])
                continue
            if record is not None:
                yield where, record


def _lines(file: BinaryIO, path: File, extent: Extent | None) -> Iterator[tuple[str, int, bytes]]:
    """(where, offset, line); lines are counted from the file's start, else named by their byte."""
    offset, end = extent or (0, None)
    counted, number = offset == 0, 0
    if not counted:
        file.seek(offset - 1)
        offset += _skip_line(file) - 1
    while (end is None or offset < end) and (line := file.readline(LINE_BYTES)):
        number += 1
        yield f"{path}:{number}" if counted else f"{path}: line at byte {offset}", offset, line
        offset += len(line)
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            offset += _skip_line(file)


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of the line; how many bytes that was."""
    count = 0
    while part := file.readline(LINE_BYTES):
        count += len(part)
        if part.endswith(b"\n"):
            break
    return count


def _record(line: bytes, where: str, offset: int) -> dict[str, Any] | None:
    """The object of a line, None if the line is blank. Raises DataError: see `jsonl_rows`."""
    if len(line) == LINE_BYTES and not line.endswith(b"\n"):
        raise DataError(
            f"A line is longer than {LINE_BYTES >> 20} MiB", where=where, fix="one JSON object per line"
        )
    try:
        text = line.decode("utf-8" if offset else "utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise undecodable(error, where, offset) from error
    if not text:
        return None
    try:
        record = json.loads(text)
        if isinstance(record, dict):
            return record
        why = f"it is a {type(record).__name__}"
    except (ValueError, RecursionError) as error:
        why = str(error)
    raise DataError(
        "A line is not a JSON object",
        where=where,
        why=why,
        fix="repair or remove the line; every line is one whole JSON object",
    )
