"""Progress of a long preparation: a rich bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_SECONDS = 10.0


class Progress:
    """Shows tasks that count bytes, on stderr; `quiet` shows nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A task; call what it yields with the bytes that were done since the last call."""
        if self.quiet:
            yield lambda _: None
        elif sys.stderr.isatty():
            with _bar(name, total) as advance:
                yield advance
        else:
            lines = _Lines(name, total)
            yield lines.advance
            if lines.done or time.monotonic() - lines.start >= _LINE_SECONDS:
                lines.show()

    def say(self, line: str) -> None:
        """Print a line."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)


QUIET = Progress(quiet=True)


@contextmanager
def _bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)
        done = bar.tasks[0].completed
        bar.update(task, total=done, completed=done)


class _Lines:
    """`name: 12.3 MB of 45.6 MB, 7.8 MB/s`, every ten seconds and at the end."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total, self.done = name, total, 0
        self.start = self.shown = time.monotonic()

    def advance(self, count: int) -> None:
        self.done += count
        if time.monotonic() - self.shown >= _LINE_SECONDS:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        of = f" of {self.total / 1e6:,.1f} MB" if self.total else ""
        speed = self.done / 1e6 / max(self.shown - self.start, 1e-9)
        print(f"{self.name}: {self.done / 1e6:,.1f} MB{of}, {speed:,.1f} MB/s", file=sys.stderr, flush=True)
