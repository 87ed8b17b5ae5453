"""Requests that wait in line for the one thread that runs the model."""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Condition, Event, Thread

from growlm.inference.serve.ask import Ask, Refused
from growlm.inference.serve.complete import Piece

Run = Callable[[Ask], Iterator[Piece]]


class Job:
    """A request in line; what comes of it is in `answers`: pieces, at last None, or what went wrong."""

    def __init__(self, ask: Ask, seconds: float) -> None:
        self.ask = ask
        self.answers: SimpleQueue[Piece | Refused | None] = SimpleQueue()
        self.cancelled = Event()
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    @property
    def late(self) -> bool:
        """Whether its time is up; it runs from when the request came."""
        return time.monotonic() > self._until


class Line:
    """At most `longest` jobs wait, and one runs; each has `seconds`."""

    def __init__(self, run: Run, *, longest: int, seconds: float) -> None:
        self._run, self._longest, self._seconds = run, longest, seconds
        self._waiting: deque[Job] = deque()
        self._changed = Condition()
        self._current: Job | None = None
        self._closed = False
        self._thread = Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def add(self, ask: Ask) -> Job:
        """A job at the end of the line. Raises Refused if the line is full."""
        job = Job(ask, self._seconds)
        with self._changed:
            if self._closed:
                raise Refused(503, "The server is shutting down.")
            if len(self._waiting) + (self._current is not None) > self._longest:
                raise Refused(
                    429, f"{self._longest} requests are waiting already.", code="rate_limit_exceeded"
                )
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: it leaves the line, or is stopped at the next token."""
        job.cancelled.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def close(self) -> None:
        """Stop the job that runs and refuse all others; returns when the model is at rest."""
        with self._changed:
            self._closed = True
            for job in [*self._waiting, *([self._current] if self._current else [])]:
                job.cancelled.set()
                job.answers.put(Refused(503, "The server is shutting down."))
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._answer(job)
            except Refused as refused:
                job.answers.put(refused)
            except Exception:
                traceback.print_exc(file=sys.stderr)
                job.answers.put(Refused(500, "The model failed; the server's output says how."))

    def _next(self) -> Job | None:
        with self._changed:
            self._current = None
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _answer(self, job: Job) -> None:
        if not job.late:
            for piece in self._run(job.ask):
                if job.cancelled.is_set() or job.late:
                    break
                job.answers.put(piece)
            else:
                job.answers.put(None)
                return
        if not job.cancelled.is_set():
            why = f"The request took longer than {job.seconds:g} s, waiting included."
            raise Refused(504, why, code="timeout")
