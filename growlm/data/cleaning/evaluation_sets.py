"""The items of evaluation sets in files of common formats."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from growlm.data.reading.columns import parquet_rows
from growlm.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".txt")
"""What can be read, each also with `.gz`; and Parquet."""
PARQUET = ".parquet"


def evaluation_files(paths: Iterable[str | Path]) -> dict[str, Path]:
    """The files meant by files and folders, by the name of their set: the file's without its extension.

    Raises:
        DataError: nothing there, an unknown extension, or two sets of one name.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        files = sorted(file for file in path.rglob("*") if _suffix(file)) if path.is_dir() else [path]
        if not files or not all(file.is_file() and _suffix(file) for file in files):
            raise DataError(
                "There is no evaluation set here",
                where=str(path),
                why="it is no file, or of no extension that can be read",
                fix=f"give files or folders of {', '.join(SUFFIXES)}, each also with .gz, or {PARQUET}",
            )
        for file in files:
            name = file.name[: -len(_suffix(file))]
            if found.setdefault(name, file) != file:
                raise DataError(
                    f"Two evaluation sets are named {name!r}",
                    where=f"{found[name]}, {file}",
                    fix="rename one: a set has the name of its file",
                )
    return found


def items(path: Path) -> Iterator[list[str]]:
    """The text fields of each item, in their order; items without any are left out.

    An item is a line of JSON, an element of a JSON list, a row of CSV or Parquet, or a paragraph of text. Of
    JSON and Parquet every string counts, however deep, and keys with a space in them, which are text and no
    names.

    Raises:
        DataError: unreadable or malformed, or Parquet without pyarrow.
    """
    for item in _items(path):
        if fields := [text for text in _strings(item) if text.strip()]:
            yield fields


def _items(path: Path) -> Iterator[object]:
    if _suffix(path) == PARQUET:
        yield from (row for _, row in parquet_rows(path))
        return
    readers = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".txt": _paragraphs}
    with _open(path) as file:
        yield from readers[_suffix(path).removesuffix(".gz")](file, path)


def _suffix(path: Path) -> str:
    """The extension of a file that can be read, with `.gz` if it has it, or ""."""
    known = (*(suffix + gz for suffix in SUFFIXES for gz in ("", ".gz")), PARQUET)
    return next((suffix for suffix in known if path.name.endswith(suffix)), "")


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    try:
        with path.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            yield io.TextIOWrapper(stream, "utf-8-sig", newline="")  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError("An evaluation set cannot be read", where=str(path), why=str(error)) from error


def _json_lines(file: TextIO, path: Path) -> Iterator[object]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield _parsed(line, f"{path}:{number}")


def _json(file: TextIO, path: Path) -> Iterator[object]:
    parsed = _parsed(file.read(), str(path))
    yield from parsed if isinstance(parsed, list) else [parsed]


def _csv(file: TextIO, path: Path) -> Iterator[object]:
    del path
    rows = csv.reader(file)
    next(rows, None)
    yield from rows


def _paragraphs(file: TextIO, path: Path) -> Iterator[object]:
    del path
    lines: list[str] = []
    for line in file:
        if line.strip():
            lines.append(line)
        elif lines:
            yield lines
            lines = []
    yield lines


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("An evaluation set is not JSON", where=where, why=str(error)) from error


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for element in value:
            yield from _strings(element)
    elif isinstance(value, dict):
        for key, element in value.items():
            if " " in key:
                yield key
            yield from _strings(element)
