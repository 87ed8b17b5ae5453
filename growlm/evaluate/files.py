"""Evaluation data in a folder of the user's: found by name, read as rows."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from growlm.data.reading.documents import rows
from growlm.data.reading.files import open_bytes
from growlm.errors import DataError

_ROWS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".arrow")
SUFFIXES = (*_ROWS, ".json", ".json.gz", ".csv", ".csv.gz")
"""What can be read: the first row of a .csv names its columns, a .json is a list or one object a line."""


def find_file(data_dir: Path, *names: str) -> Path | None:
    """The file below a folder that has the first of these names that any file has; None: there is none.

    Letter case, the extension and the shard number of the hub (`-00000-of-00001`) do not matter, `-`, `_`,
    `.` and folders are one: `boolq-val` is `BoolQ/val.jsonl`, `superglue/boolq_val.json.gz`, ...

    Raises DataError: no such folder, or two files of a name.
    """
    if not data_dir.is_dir():
        raise DataError("No such folder", where=str(data_dir), fix="--data-dir FOLDER with the files")
    known = {path: _plain(path.relative_to(data_dir)) for path in _files(data_dir)}
    for name in map(_fold, names):
        found = [path for path, plain in known.items() if f"-{plain}".endswith(f"-{name}")]
        if len(found) > 1:
            raise DataError(
                f"More than one file could be {name!r}",
                where=str(data_dir),
                why=", ".join(str(path.relative_to(data_dir)) for path in found),
                fix="leave one of them there",
            )
        if found:
            return found[0]
    return None


def find_rows(data_dir: Path, *names: str) -> list[dict[str, Any]]:
    """The rows of `find_file`.

    Raises DataError: see there and `read_rows`; no such file.
    """
    path = find_file(data_dir, *names)
    if path is None:
        raise DataError(
            f"No file for {names[0]!r}",
            where=str(data_dir),
            why=f"none has the name {' or '.join(names)} and one of the extensions {', '.join(SUFFIXES)}",
            fix="put it there: docs/evaluation.md says where each comes from",
        )
    return read_rows(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a file, at least one. Raises DataError with file and line: damaged, or no rows."""
    if path.name.endswith(_ROWS):
        found = [row for _, row in rows(path)]
    else:
        text = _text(path)
        found = _csv(text) if ".csv" in path.suffixes else _json(text, path)
    if not found:
        raise DataError("The file has no rows", where=str(path), fix="fetch it again")
    return found


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())


def _plain(path: Path) -> str:
    name = path.as_posix()
    suffix = max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len)
    return re.sub(r"-\d+-of-\d+$", "", _fold(name.removesuffix(suffix)))


def _fold(name: str) -> str:
    return re.sub(r"[-_./ ]+", "-", name.lower())


def _text(path: Path) -> str:
    with open_bytes(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            "The file is not UTF-8", where=f"{path}:{line}", why=str(error), fix="convert it"
        ) from error


def _csv(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _json(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        if not text.lstrip().startswith("["):
            return [_object(line, path, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        found = json.loads(text)
    except ValueError as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise _damaged(path, line, str(error)) from error
    for index, row in enumerate(found):
        if not isinstance(row, dict):
            raise _damaged(path, 1, f"element {index} of the list is a {type(row).__name__}, not an object")
    return found


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise _damaged(path, number, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, number, f"it is a {type(found).__name__}, not an object")
    return found


def _damaged(path: Path, line: int, why: str) -> DataError:
    return DataError("A row cannot be read", where=f"{path}:{line}", why=why, fix="fetch the file again")
