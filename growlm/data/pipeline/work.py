"""The folder of a preparation's results. A task's result is a folder that appears whole, by one rename."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from growlm.data.pipeline.plan import Plan
from growlm.testing.faults import fault_point

PLAN = "plan.json"
TOKENIZER = "tokenizer.json"
_LEFT_SECONDS = 3600.0


class Part(NamedTuple):
    """What one task of the scan reads: whole files of a source, or one extent of one file."""

    source: str
    first: int
    end: int
    """Files [first, end) of the source."""
    extent: tuple[int, int] | None
    bytes: int
    whole: bool
    """It is the whole source."""


class ChunkPlace(NamedTuple):
    """One chunk of clean text, and the numbers of its documents among all."""

    source: str
    task: int
    number: int
    first: int
    documents: int
    bytes: int

    @property
    def end(self) -> int:
        """One after the number of its last document."""
        return self.first + self.documents


class Work:
    """Results by (phase, number), and what all tasks have to know, which is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def plan(self) -> Plan:
        """What is asked."""
        return Plan.model_validate_json((self.folder / PLAN).read_bytes())

    @cached_property
    def parts(self) -> list[Part]:
        """The tasks of the scan."""
        return [Part(*part) for part in self.read("parts")]

    @cached_property
    def chunks(self) -> list[ChunkPlace]:
        """All chunks, in the order of the sources and their files."""
        return [ChunkPlace(*chunk) for chunk in self.read("chunks")]

    def path(self, phase: str, number: int) -> Path:
        """Where the result of a task is, once it is done."""
        return self.folder / phase / f"{number:06d}"

    def done(self, phase: str, number: int) -> bool:
        """Whether a task is done."""
        return self.path(phase, number).is_dir()

    def result(self, phase: str, number: int) -> dict[str, Any]:
        """The facts that a task has written beside its files."""
        return json.loads((self.path(phase, number) / "result.json").read_bytes())

    @contextmanager
    def commit(self, phase: str, number: int) -> Iterator[Path]:
        """Yield an empty folder; when the block succeeds it is the task's result, on the disk and whole."""
        target = self.path(phase, number)
        target.parent.mkdir(exist_ok=True)
        folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        folder.mkdir()
        try:
            yield folder
            for path in [*folder.iterdir(), folder]:
                sync(path)
            fault_point(f"data.{phase}")
            try:
                folder.rename(target)
            except OSError:
                if not target.is_dir():  # else another worker was there first, with the same bytes
                    raise
            sync(target.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed tasks have left. Only for a start that holds the lock, before it runs any.

        What was written to lately stays: a cluster may still run a job of a start that was killed.
        """
        for left in self.folder.glob("*/.[0-9]*"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)

    def read(self, name: str) -> Any:
        """A JSON file that all tasks share."""
        return json.loads((self.folder / f"{name}.json").read_bytes())

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file that all tasks share, whole or not at all."""
        write_whole(self.folder / f"{name}.json", json.dumps(content).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file, whole or not at all. Raises OSError."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(content)
    sync(beside)
    beside.rename(path)


def sync(path: Path) -> None:
    """Wait until a file or the names of a folder are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
