"""The record of a run: `metrics.jsonl`, one JSON object per line, append-only. No torch.

Every line is one `write` on an O_APPEND descriptor, so what the kernel took survives `kill -9`. What a
resumed run repeats is not erased: readers drop the older version (see `RecordReader`).
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from growlm.errors import DiskError, RecipeError

RECORD_NAME = "metrics.jsonl"

# Kinds that a run repeats when it resumes from before them; the rest (start, event, end...) is history.
_REPEATED = frozenset({"step", "valid", "tasks", "sample", "forecast", "save", "growth", "stage"})
_WITH_STEP = _REPEATED | {"resume"}
_LINES_PER_PARSE = 2048


class Recorder:
    """Appends records of one incarnation to `path`. One owner at a time (the run's lock).

    A torn last line, left by a power cut, is ended first so that the next record starts clean. A disk that
    fills up later never stops training: records wait in a buffer of `backlog` lines, oldest dropped first.
    Raises `DiskError` when the file cannot be opened at all.
    """

    def __init__(self, path: Path, incarnation: int, backlog: int = 10_000) -> None:
        self.path, self.incarnation = Path(path), incarnation
        self._waiting: deque[bytes] = deque(maxlen=backlog)
        self._warned = False
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._fd).st_size
            self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        except OSError as error:
            raise DiskError(
                "The record of the run cannot be written.",
                where=str(self.path),
                why=error.strerror or str(error),
            ) from error

    def append(self, kind: str, /, **fields: Any) -> None:
        """Write one record now. `fields` are JSON values; NaN and infinities become null."""
        record = {"kind": kind, "time": time.time(), "incarnation": self.incarnation, **fields}
        self._waiting.append(_encode(record))
        self._drain()

    def close(self) -> None:
        """Write what waits, if the disk takes it, and close. Further calls do nothing."""
        if self._fd >= 0:
            self._drain()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drain(self) -> None:
        try:
            while self._waiting:
                line = b"\n" + self._waiting[0] if self._torn else self._waiting[0]
                written = os.write(self._fd, line)
                if written < len(line):  # the disk filled up inside the line: write it again, whole, later
                    self._torn = True
                    continue
                self._torn = False
                self._waiting.popleft()
            self._warned = False
        except OSError as error:
            if not self._warned:
                self._warned = True
                with suppress(OSError):  # stderr may be a file on the same disk
                    print(
                        f"growlm: cannot write {self.path} ({error.strerror}); training goes on, the last "
                        f"{self._waiting.maxlen} records are kept in memory and written when there is room.",
                        file=sys.stderr,
                    )


class RecordReader:
    """Reads a record that may still be growing: every `read` parses only what was appended since the last.

    `records` holds what counts, in file order. Lines that are no record (torn by a power cut or a full
    disk) are ignored. When a newer incarnation resumes at step s, repeatable records of older ones with
    step > s are superseded and dropped; one that trains without having resumed started anew before its
    first step.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.records: list[dict[str, Any]] = []
        self._offset = 0
        self._restarted = 0  # the newest incarnation whose restart has been applied

    def read(self) -> list[dict[str, Any]]:
        """All records that count now. Raises `RecipeError` when there is no such file."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while lines := file.readlines(1 << 20):
                    whole = lines if lines[-1].endswith(b"\n") else lines[:-1]
                    self._offset += sum(map(len, whole))
                    for record in _parse(whole):
                        self._take(record)
                    if whole is not lines:  # torn, or being written right now: read it again next time
                        break
        except FileNotFoundError as error:
            raise RecipeError("There is no record of a run here.", where=str(self.path)) from error
        return self.records

    def _take(self, record: dict[str, Any]) -> None:
        incarnation, kind = record["incarnation"], record["kind"]
        if incarnation > self._restarted and kind in ("resume", "step"):
            self._restarted = incarnation
            last = record["step"] if kind == "resume" else record["step"] - 1
            self.records[:] = [
                r
                for r in self.records
                if r["kind"] not in _REPEATED or r["incarnation"] >= incarnation or r["step"] <= last
            ]
        self.records.append(record)


def read_record(path: Path) -> list[dict[str, Any]]:
    """All records of a run that count, in order (see `RecordReader`). Raises `RecipeError` for no file."""
    return RecordReader(path).read()


def next_incarnation(path: Path) -> int:
    """The number of the next start of this run: 1 for a new run, else one more than ever recorded."""
    if not Path(path).exists():
        return 1
    return 1 + max((r["incarnation"] for r in read_record(path)), default=0)


def _encode(record: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(finite(record), ensure_ascii=False, allow_nan=False)
    # A lone surrogate (half a character, cut by a tokenizer) becomes its JSON escape.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def finite(value: Any) -> Any:
    """JSON values, with null for every float that is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def _parse(lines: list[bytes]) -> list[dict[str, Any]]:
    """Records of `lines`. Parsed in blocks, because one call shares the key strings of all its objects."""
    found: list[Any] = []
    for start in range(0, len(lines), _LINES_PER_PARSE):
        block = lines[start : start + _LINES_PER_PARSE]
        try:
            found += json.loads(b"[" + b",".join(block) + b"]")
        except ValueError:
            found += [value for line in block if (value := _parse_line(line)) is not None]
    return [value for value in found if _is_record(value)]


def _parse_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("kind"), str)
        and isinstance(value.get("incarnation"), int)
        and (value["kind"] not in _WITH_STEP or isinstance(value.get("step"), int))
    )
