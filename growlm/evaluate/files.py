"""Evaluation data in a folder of the user's: found by name, read as rows."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from growlm.data.reading.documents import rows
from growlm.data.reading.files import open_bytes
from growlm.errors import DataError

_ROWS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".arrow")
SUFFIXES = (*_ROWS, ".json", ".json.gz", ".csv", ".csv.gz")
"""What can be read: the first row of a .csv names its columns, a .json is a list or one object a line."""


class Folder:
    """A folder with evaluation data, listed once. Raises DataError: no such folder."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError("No such folder", where=str(path), fix="--data-dir FOLDER with the files")
        self.path = path
        files = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES) and file.is_file())
        self._names = {file: f"-{_plain(file.relative_to(path))}" for file in files}

    def find(self, *names: str) -> Path | None:
        """The file that has the first of these names that any file has; None: there is none.

        Letter case, the extension and the shard number of the hub (`-00000-of-00001`) do not matter, `-`,
        `_`, `.` and folders are one: `boolq-val` is `BoolQ/val.jsonl`, `superglue/boolq_val.json.gz`, ...

        Raises DataError: two files of a name.
        """
        for name in map(_fold, names):
            found = [file for file, its in self._names.items() if its.endswith(f"-{name}")]
            if len(found) > 1:
                raise DataError(
                    f"More than one file could be {name!r}",
                    where=str(self.path),
                    why=", ".join(str(file.relative_to(self.path)) for file in found),
                    fix="leave one of them there",
                )
            if found:
                return found[0]
        return None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a file, at least one. Raises DataError with file and line: damaged, or no rows."""
    if path.name.endswith(_ROWS):
        found = [row for _, row in rows(path)]
    else:
        text = _text(path)
        found = _csv(text, path) if ".csv" in path.suffixes else _json(text, path)
    if not found:
        raise DataError("The file has no rows", where=str(path), fix="fetch it again")
    for number, row in enumerate(found, 1):
        try:
            json.dumps(row, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:  # "\\ud83d" alone: no tokenizer takes it, no file can hold it
            raise _damaged(path, number, f"row {number} holds half of a surrogate pair") from error
    return found


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


def _csv(text: str, path: Path) -> list[dict[str, Any]]:
    lines = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return list(lines)
    except csv.Error as error:
        raise _damaged(path, lines.line_num + 1, str(error)) from error


def _json(text: str, path: Path) -> list[dict[str, Any]]:
    if not text.lstrip().startswith("["):
        return [_object(line, path, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    found = _parsed(text, path, 1)
    for index, row in enumerate(found):
        if not isinstance(row, dict):
            raise _damaged(path, 1, f"element {index} of the list is a {type(row).__name__}, not an object")
    return found


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    found = _parsed(line, path, number)
    if not isinstance(found, dict):
        raise _damaged(path, number, f"it is a {type(found).__name__}, not an object")
    return found


def _parsed(text: str, path: Path, first: int) -> Any:
    """JSON that begins in line `first`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _damaged(path, first + error.lineno - 1, error.msg) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, a thousand brackets
        raise _damaged(path, first, str(error)) from error


def _damaged(path: Path, line: int, why: str) -> DataError:
    return DataError("A row cannot be read", where=f"{path}:{line}", why=why, fix="fetch the file again")
