"""Progress of long work: a rich bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_LINE_SECONDS = 10.0


class Progress:
    """Shows tasks on stderr (or `stream`), which count bytes or something that has a name; `quiet` shows
    nothing."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet, self._stream = quiet, stream

    @contextmanager
    def task(
        self, name: str, total: int | None = None, unit: str = "bytes"
    ) -> Iterator[Callable[[int], None]]:
        """A task; call what it yields with how many were done since the last call."""
        if self.quiet:
            yield lambda _: None
        elif self._place.isatty():
            with _bar(name, total, unit, self._place) as advance:
                yield advance
        else:
            lines = _Lines(name, total, unit, self._place)
            yield lines.advance
            if lines.done or time.monotonic() - lines.start >= _LINE_SECONDS:
                lines.show()

    def say(self, line: str) -> None:
        """Print a line."""
        if not self.quiet:
            print(line, file=self._place, flush=True)

    @property
    def _place(self) -> TextIO:
        return self._stream or sys.stderr


QUIET = Progress(quiet=True)


@contextmanager
def _bar(name: str, total: int | None, unit: str, stream: TextIO) -> Iterator[Callable[[int], None]]:
    from rich import progress
    from rich.console import Console

    counted: list[Any] = [progress.MofNCompleteColumn(), progress.TextColumn(unit)]
    if unit == "bytes":
        counted = [progress.DownloadColumn(binary_units=True), progress.TransferSpeedColumn()]
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *counted,
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)
        done = bar.tasks[0].completed
        bar.update(task, total=done, completed=done)


class _Lines:
    """`name: 12.3 MB of 45.6 MB, 7.8 MB/s` or `name: 1,200 of 40,168 requests, 35.1 a second`, every ten
    seconds and at the end."""

    def __init__(self, name: str, total: int | None, unit: str, stream: TextIO) -> None:
        self.name, self.total, self.unit, self.stream, self.done = name, total, unit, stream, 0
        self.start = self.shown = time.monotonic()

    def advance(self, count: int) -> None:
        self.done += count
        if time.monotonic() - self.shown >= _LINE_SECONDS:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        speed = self.done / max(self.shown - self.start, 1e-9)
        if self.unit == "bytes":
            of = f" of {self.total / 1e6:,.1f} MB" if self.total else ""
            line = f"{self.done / 1e6:,.1f} MB{of}, {speed / 1e6:,.1f} MB/s"
        else:
            of = f" of {self.total:,}" if self.total else ""
            line = f"{self.done:,}{of} {self.unit}, {speed:,.1f} a second"
        print(f"{self.name}: {line}", file=self.stream, flush=True)
