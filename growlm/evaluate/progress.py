"""Progress of requests: a rich bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_LINE_SECONDS = 10.0


@contextmanager
def counted(
    name: str, total: int, *, unit: str = "requests", quiet: bool = False, stream: TextIO | None = None
) -> Iterator[Callable[[int], None]]:
    """A task of `total` requests; call what it yields with how many were done since the last call."""
    place = stream or sys.stderr
    if quiet:
        yield lambda _: None
    elif place.isatty():
        with _bar(name, total, unit, place) as advance:
            yield advance
    else:
        yield _Lines(name, total, unit, place).advance


@contextmanager
def _bar(name: str, total: int, unit: str, stream: TextIO) -> Iterator[Callable[[int], None]]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)


class _Lines:
    """`hellaswag: 1,200 of 40,168 requests, 35.1 a second`, every ten seconds."""

    def __init__(self, name: str, total: int, unit: str, stream: TextIO) -> None:
        self.name, self.total, self.unit, self.stream, self.done = name, total, unit, stream, 0
        self.start = self.shown = time.monotonic()

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.shown >= _LINE_SECONDS:
            self.shown = now
            speed = self.done / (now - self.start)
            line = f"{self.name}: {self.done:,} of {self.total:,} {self.unit}, {speed:,.1f} a second"
            print(line, file=self.stream, flush=True)
