"""Executors on this machine: in this process, or with one process per core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock

from growlm import errors
from growlm.data.pipeline.tasks import Advance, run_task
from growlm.data.pipeline.work import Work
from growlm.errors import GrowLMError

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


class InProcess:
    """Runs one task after the other, here. The tokenizer's library still uses all cores."""

    def run(self, work: Work, phase: str, numbers: list[int], advance: Advance) -> None:
        """See `Executor`."""
        for number in numbers:
            run_task(work, phase, number, advance)

    def close(self) -> None:
        """See `Executor`."""


class Processes:
    """Runs tasks in `workers` processes of one thread each.

    They are started as commands, not forked: a fork would take over the threads and locks of this process,
    and a spawn would import the user's script again. They stay for the next phase until `close`.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._started: list[_Worker] = []

    def run(self, work: Work, phase: str, numbers: list[int], advance: Advance) -> None:
        """See `Executor`."""
        workers = min(self.workers, len(numbers))
        if workers < 2:
            InProcess().run(work, phase, numbers, advance)
            return
        waiting: SimpleQueue[int] = SimpleQueue()
        for number in numbers:
            waiting.put(number)
        lock = Lock()

        def advance_alone(count: int) -> None:
            with lock:
                advance(count)

        while len(self._started) < workers:
            self._started.append(_Worker(work))
        with ThreadPoolExecutor(workers) as threads:
            running = [
                threads.submit(worker.run, phase, waiting, advance_alone)
                for worker in self._started[:workers]
            ]
            try:
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                for future in (future for future in running if future in done):
                    future.result()
            except BaseException:
                self.close()  # and with the workers their threads end
                raise

    def close(self) -> None:
        """See `Executor`."""
        while self._started:
            self._started.pop().close()


class _Worker:
    """A process that runs the tasks it is told on its standard input (`worker`)."""

    def __init__(self, work: Work) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "growlm.data.pipeline.worker", str(work.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | _ONE_THREAD | {"TOKENIZERS_PARALLELISM": "false"},
            start_new_session=True,  # Ctrl-C is for this process, which then ends its workers
        )

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was written to it last did not arrive
                pipe.close()

    def run(self, phase: str, waiting: SimpleQueue[int], advance: Callable[[int], None]) -> None:
        """Run tasks until none waits. Raises what a task raises, or GrowLMError if the process died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        while True:
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                self._process.stdin.write(f"{phase} {number}\n")
                self._process.stdin.flush()
            except BrokenPipeError as error:
                raise _died(self._process.wait()) from error
            for line in self._process.stdout:
                said = json.loads(line)
                if "done" in said:
                    break
                if "error" in said:
                    raise error_from(said["error"])
                advance(said["advance"])
            else:
                raise _died(self._process.wait())


def error_to(error: Exception) -> dict[str, object]:
    """An error in plain JSON types."""
    if isinstance(error, GrowLMError):
        parts = {key: getattr(error, key) for key in ("what", "where", "why", "fix")}
        return {"kind": type(error).__name__, **parts}
    if isinstance(error, OSError) and error.errno:
        return {"errno": error.errno, "strerror": error.strerror, "filename": str(error.filename or "")}
    raise error


def error_from(said: dict[str, object]) -> Exception:
    """The error that `error_to` has described."""
    if "errno" in said:
        return OSError(said["errno"], said["strerror"], said["filename"])
    kind = getattr(errors, str(said["kind"]))
    return kind(said["what"], where=said["where"], why=said["why"], fix=said["fix"])


def _died(code: int) -> GrowLMError:
    return GrowLMError(
        "A worker of the preparation was killed" if code < 0 else "A worker of the preparation failed",
        why=f"signal {-code}; 9 often means that the memory was used up" if code < 0 else f"exit code {code}",
        fix="run the same command again: it goes on where it stopped; --workers 1 takes the least memory",
    )
