"""Finds a rank that is frozen: when a phase takes too long, every rank writes its stacks and ends.

A rank that freezes leaves the others waiting in a collective, so all of them run out of time together, and
each ends a second after it has written where it was. The launcher starts them again and the run goes on from
its last checkpoint. Arming costs less than a microsecond: a thread of its own looks at the deadline. Should
that thread not get to run, because something holds the interpreter, the timer of faulthandler, which needs
no interpreter, ends the rank two seconds later.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Self

GRACE_SECONDS = 1.0
"""From the stacks of a rank to its end, in which the other ranks write theirs."""

TIMER_SECONDS = 2.0
"""From the deadline to the end of a rank whose interpreter is held."""

_STACK = "(most recent call first)"


@dataclass(frozen=True)
class Frozen:
    """What a rank wrote when its time ran out: `step` is the last one that was done, `since` unix seconds."""

    rank: int
    phase: str
    step: int
    since: float
    path: str = ""
    """Where its stacks are now; empty if it could not write them."""


class Watchdog:
    """Ends this process, with its stacks on record, when a phase takes longer than its timeout.

    `timeouts` are seconds by phase. Stacks go to `folder/rank-00002.txt`; without a folder yet, to stderr.
    It starts with the phase "setup".
    """

    def __init__(self, folder: Path | None, rank: int, timeouts: Mapping[str, float]) -> None:
        self._rank, self._timeouts = rank, dict(timeouts)
        self._path = folder and folder / f"rank-{rank:05d}.txt"
        self._file: IO[str] = sys.stderr
        self._wake = threading.Condition()
        self._running = False

    def __enter__(self) -> Self:
        self._running = True
        self._looks_at = 0.0
        self.arm("setup")
        if self._path:
            self.attach(self._path.parent)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._wake:
            self._running = False
            self._wake.notify()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        if self._file is not sys.stderr:
            self._file.close()
            if self._path:
                self._path.unlink(missing_ok=True)

    def attach(self, folder: Path) -> None:
        """Write stacks into this folder from now on. What `read_stacks` has not taken is overwritten."""
        with suppress(OSError), self._wake:  # stderr serves on a full disk
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"rank-{self._rank:05d}.txt"
            self._file = self._path.open("w", encoding="utf-8")

    def arm(self, phase: str, step: int = 0) -> None:
        """Begin a phase: its time runs from now. Raises KeyError for one without a timeout."""
        seconds = self._timeouts[phase]
        self._phase, self._step, self._since = phase, step, time.time()
        self._deadline = time.monotonic() + seconds
        if self._deadline < self._looks_at:
            with self._wake:
                self._wake.notify()

    @contextmanager
    def phase(self, phase: str, step: int = 0) -> Iterator[None]:
        """A phase inside another, whose time starts anew afterwards."""
        outer = self._phase, self._step
        self.arm(phase, step)
        try:
            yield
        finally:
            self.arm(*outer)

    def _watch(self) -> None:
        """Look at the deadline four times per timeout, and set the timer that needs no interpreter."""
        with self._wake:
            while self._running:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._end()
                self._write_header()
                faulthandler.dump_traceback_later(left + TIMER_SECONDS, exit=True, file=self._file)
                wait = min(left, self._timeouts[self._phase] / 4)
                self._looks_at = time.monotonic() + wait
                self._wake.wait(wait)

    def _end(self) -> None:
        """Write the stacks of all threads, let the other ranks write theirs, and end."""
        self._write_header()
        with suppress(OSError):
            faulthandler.dump_traceback(file=self._file)
            self._file.flush()
            if self._file is not sys.stderr:
                os.fsync(self._file.fileno())
        where = f"rank {self._rank} froze in phase {self._phase} after step {self._step}"
        with suppress(OSError):
            print(f"{where}: {self._timeouts[self._phase]:g} s have passed", file=sys.stderr, flush=True)
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    def _write_header(self) -> None:
        """The first line, which faulthandler cannot write: it is there before the stacks are."""
        if self._file is sys.stderr:
            return
        frozen = asdict(Frozen(self._rank, self._phase, self._step, self._since))
        with suppress(OSError):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(frozen) + "\n")
            self._file.flush()


def read_stacks(folder: Path) -> list[Frozen]:
    """The ranks that ran out of time in an earlier start, and their stacks moved to names that stay.

    A rank that wrote none while others did comes first and has no path: most often it is the one that they
    waited for. For rank 0, before any rank attaches its watchdog to the folder. Files of a start in which no
    rank ran out of time are removed.
    """
    found, silent = [], []
    for path in sorted(folder.glob("rank-?????.txt")):
        header, _, stacks = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        with suppress(ValueError, TypeError):  # a rank that was killed while it wrote the line
            frozen = Frozen(**json.loads(header))
            if _STACK not in stacks:
                silent.append(frozen)
                path.unlink()
                continue
            when = time.strftime("%Y%m%d-%H%M%S", time.localtime(frozen.since))
            kept = path.with_name(f"{path.stem}.{when}.txt")
            path.replace(kept)
            found.append(replace(frozen, path=str(kept)))
            continue
        path.unlink()
    return [*silent, *found] if found else []
