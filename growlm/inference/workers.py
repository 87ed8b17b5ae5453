"""A model in several processes, each with its own copy and its own device or share of the cores.

A worker is `python -m growlm.inference.workers SETTINGS`. It says who it is, then reads requests as lines of
JSON, a share of them at a time, and answers line by line. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from queue import Queue
from threading import Event, Thread
from typing import Any, TypeVar
from weakref import finalize

import torch

from growlm.errors import GrowLMError
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt

SHARES = 4
"""Shares of the requests for each worker: the fast ones take more."""
REQUESTS: dict[str, Callable[..., Any]] = {"likelihoods": Choice, "completions": Prompt, "rolling": str}
ANSWERS: dict[str, Callable[..., Any]] = {
    "Likelihood": Likelihood, "Completion": Completion, "Failed": Failed
}  # fmt: skip

R = TypeVar("R", Choice, Prompt, str)


class Workers:
    """A `Model` over processes. Raises GrowLMError: a worker has ended, or cannot open the model."""

    def __init__(self, settings: dict[str, Any], count: int, devices: Sequence[str]) -> None:
        """`settings` of `open_model`, as JSON can say them; worker i is on device i of `devices`, in turn."""
        threads = max(1, torch.get_num_threads() // count)
        self._workers = [
            _Worker(i, settings | {"device": devices[i % len(devices)]}, threads) for i in range(count)
        ]
        self._closer = finalize(self, _end, self._workers)
        try:
            hello = [worker.hello() for worker in self._workers]
        except BaseException:
            self.close()
            raise
        self.identity: str = hello[0]["identity"]
        self.context: int = hello[0]["context"]

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """How likely each continuation is."""
        starts = [i for i, r in enumerate(requests) if i == 0 or r.context != requests[i - 1].context]
        return self._ask("likelihoods", requests, starts)

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """How likely whole texts are."""
        return self._ask("rolling", texts, range(len(texts)))

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        """How the model goes on with each text."""
        return self._ask("completions", requests, range(len(requests)))

    def close(self) -> None:
        """End the processes."""
        self._closer()

    def _ask(self, method: str, requests: Sequence[R], starts: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Answers as they come, of shares that begin at some of `starts`."""
        shares: Queue[tuple[int, Sequence[R]] | None] = Queue()
        for start, end in _shares(len(requests), starts, SHARES * len(self._workers)):
            shares.put((start, requests[start:end]))
        for _ in self._workers:
            shares.put(None)
        answers: Queue[tuple[int, Any] | BaseException | None] = Queue()
        stop = Event()

        def work(worker: _Worker) -> None:
            try:
                while not stop.is_set() and (share := shares.get()) is not None:
                    for index, answer in worker.ask(method, share[1]):
                        answers.put((share[0] + index, answer))
                answers.put(None)
            except BaseException as error:  # raised where the answers are read
                answers.put(error)

        threads = [Thread(target=work, args=(worker,), daemon=True) for worker in self._workers]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                answer = answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                if answer is None:
                    left -= 1
                else:
                    yield answer
        finally:
            stop.set()
            if left:  # an error, or nobody wants the rest
                self.close()


class _Worker:
    """One process, from this side."""

    def __init__(self, number: int, settings: dict[str, Any], threads: int) -> None:
        self._number = number
        self._process = subprocess.Popen(
            [sys.executable, "-m", "growlm.inference.workers", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # Ctrl-C is for this process, which ends them
        )

    def hello(self) -> dict[str, Any]:
        """Who it is, once it has opened the model."""
        told = json.loads(self._line())
        if "error" in told:
            error = GrowLMError(told["error"].pop("what"), **told["error"])
            error.exit_code = told["exit_code"]
            raise error
        return told

    def ask(self, method: str, requests: Sequence[R]) -> Iterator[tuple[int, Any]]:
        """Its answers to a share."""
        plain = [r if isinstance(r, str) else asdict(r) for r in requests]
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([method, plain]) + "\n")
            self._process.stdin.flush()
        while (told := json.loads(self._line())) is not None:
            index, kind, fields = told
            yield index, ANSWERS[kind](**fields)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise GrowLMError(
                f"Worker {self._number} has ended with code {self._process.wait()}",
                why="what it wrote last stands above; -9 often means that the memory was used up",
                fix="the same command goes on with the answers that are left; --workers 1 takes less memory",
            )
        return line


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.end()


def _shares(count: int, starts: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of about one size that cover 0..count, `most` at most, each beginning at one of `starts`."""
    size, begin = -(-count // most) if count else 1, 0
    for start in [*starts[1:], count]:
        if start - begin >= size or start == count:
            if start > begin:
                yield begin, start
            begin = start


def main(settings: dict[str, Any]) -> None:
    """What a worker does."""
    from growlm.inference.source import open_model

    out, sys.stdout = sys.stdout, sys.stderr  # nothing else may write between the answers

    def tell(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    try:
        model = open_model(**settings)
    except GrowLMError as error:
        told = {"what": error.what, "where": error.where, "why": error.why, "fix": error.fix}
        return tell({"error": told, "exit_code": error.exit_code})
    tell({"identity": model.identity, "context": model.context})
    for line in sys.stdin:
        method, plain = json.loads(line)
        kind = REQUESTS[method]
        requests = [kind(r) if isinstance(r, str) else kind(**_tuples(r)) for r in plain]
        for index, answer in getattr(model, method)(requests):
            tell([index, type(answer).__name__, asdict(answer)])
        tell(None)
    return None


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a request as it has them: JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
