"""Several ranks on one machine, forked from a process that has imported everything already.

Starting torch in every rank takes seconds, forking takes milliseconds. `Ranks` keeps its processes: a job is
a function of a module with arguments that are JSON, run in the first n of them with the environment that a
launcher would give; the function joins the world by itself, as `growlm train` does:

    with Ranks(4) as ranks:
        assert ranks.run("tests.parallel.jobs:total", 3, size=2) == [6, 6]

`fork_ranks` is for what ends its processes: exit codes, kills.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from growlm.testing.faults import VARIABLE

DYING_SECONDS = 0.5
"""How long processes get to write their stacks, and survivors to report, before they are killed."""


class RanksError(AssertionError):
    """A job failed: what every failed rank reports, or where each rank was when time ran out."""


@dataclass
class _Rank:
    """A live process as its parent sees it."""

    pid: int
    channel: socket.socket
    log: Path


class Ranks:
    """Up to `count` ranks that stay alive between jobs, and are forked again when a job broke them.

    `preload` names modules to import once, before the fork.
    """

    def __init__(self, count: int, timeout: float = 60.0, preload: Iterable[str] = ()) -> None:
        self.count, self.timeout, self._preload = count, timeout, tuple(preload)
        self._ranks: list[_Rank] = []

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        for module in self._preload:
            importlib.import_module(module)
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._folder.cleanup()

    def run(
        self,
        function: Callable[..., Any] | str,
        *args: Any,
        size: int | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """The results of `function(*args)` by rank, from the first `size` ranks.

        `function` is one of a module, or `"module:name"`; arguments and results travel as JSON. `env` is
        set for the job only.

        Raises RanksError with the tracebacks if a rank raised or died, and with the stacks of all ranks if
        it took longer than `timeout` seconds.
        """
        if not self._ranks:
            self._start()
        name = function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"
        ranks, port = self._ranks[: size or self.count], _free_port()
        for number, rank in enumerate(ranks):
            place = _launched(number, len(ranks), port)
            call = {"function": name, "args": args, "env": {**place, **(env or {})}}
            rank.channel.sendall(json.dumps(call).encode() + b"\n")
        seconds = self.timeout if timeout is None else timeout
        answers, late = _answers(ranks, seconds)
        failures = [f"rank {n}: {a['error']}" for n, a in answers.items() if "error" in a]
        if not failures and not late:
            return [answers[n]["result"] for n in range(len(ranks))]
        if late and not failures:
            failures = [f"no answer from rank {', '.join(map(str, late))} within {seconds:g} s"]
            failures += [_stacks(rank, number) for number, rank in enumerate(ranks)]
        if late or any(a.get("died") for a in answers.values()):
            self._kill()
        raise RanksError(f"{name} on {len(ranks)} ranks\n\n" + "\n\n".join(failures))

    def _start(self) -> None:
        for number in range(self.count):
            ours, theirs = socket.socketpair()
            log = Path(self._folder.name, f"rank-{number}.log")
            pid = _fork()
            if pid == 0:
                for other in [*(r.channel for r in self._ranks), ours]:
                    other.close()
                _write_output_to(log)
                faulthandler.register(signal.SIGUSR1)
                _serve(theirs)
            theirs.close()
            self._ranks.append(_Rank(pid, ours, log))

    def _kill(self) -> None:
        for rank in self._ranks:
            rank.channel.close()
            os.kill(rank.pid, signal.SIGKILL)
        for rank in self._ranks:
            os.waitpid(rank.pid, 0)
        self._ranks = []


def fork_ranks(
    count: int,
    function: Callable[[], object],
    *,
    faults: Mapping[int, str] | None = None,
    logs: Path | None = None,
    timeout: float = 60.0,
) -> list[int]:
    """The exit codes of so many forked ranks that each run `function()`: -9 is SIGKILL, 0 that it returned.

    The function sees the environment that a launcher would give, and `faults` arms fault points by rank.
    What rank 3 prints goes to `rank-3.log` in the folder `logs`, or with the output of this process.
    Past `timeout` seconds all that are left are killed.
    """
    port, pids = _free_port(), []
    for number in range(count):
        pid = _fork()
        if pid == 0:
            os.environ.update(_launched(number, count, port))
            if faults and number in faults:
                os.environ[VARIABLE] = faults[number]
            if logs:
                _write_output_to(logs / f"rank-{number}.log")
            _run_and_exit(function)
        pids.append(pid)
    return _exit_codes(pids, time.monotonic() + timeout)


def _run_and_exit(function: Callable[[], object]) -> None:
    """What a forked rank of `fork_ranks` does; never returns."""
    code: object = 1
    try:
        function()
        code = 0
    except SystemExit as exit_:
        code = exit_.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _exit_codes(pids: list[int], deadline: float) -> list[int]:
    """Wait for children; those that are late are killed."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        for pid in set(pids) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():  # newer Pythons warn of threads; those of torch on a CPU do not matter
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _launched(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment of a rank, as torchrun sets it on one machine."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _write_output_to(log: Path) -> None:
    """Send what this process prints, also from C, to a file."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(fd, stream)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115


def _serve(channel: socket.socket) -> None:
    """What a rank does for its life: a call is a line, and so is its answer. Never returns."""
    try:
        for line in channel.makefile("rb"):
            call = json.loads(line)
            before = {name: os.environ.get(name) for name in call["env"]}
            os.environ.update(call["env"])
            try:
                answer = {"result": _function(call["function"])(*call["args"])}
                text = json.dumps(answer)
            except Exception:
                text = json.dumps({"error": traceback.format_exc()})
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})
            channel.sendall(text.encode() + b"\n")
    finally:
        os._exit(0)


def _function(name: str) -> Callable[..., Any]:
    module, _, qualified = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    return found


def _answers(ranks: list[_Rank], timeout: float) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """What the ranks answered, in the order of their answers, and the ranks that did not in time.

    After a first failure the others get half a second: they may wait for the failed one for ever.
    """
    answers: dict[int, dict[str, Any]] = {}
    buffers = dict.fromkeys(range(len(ranks)), b"")
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for number, rank in enumerate(ranks):
            selector.register(rank.channel, selectors.EVENT_READ, number)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                number = key.data
                received = ranks[number].channel.recv(1 << 20)
                buffers[number] += received
                if received and not received.endswith(b"\n"):
                    continue
                selector.unregister(key.fileobj)
                answers[number] = json.loads(buffers[number]) if received else _died(ranks[number])
                if "error" in answers[number]:
                    deadline = min(deadline, time.monotonic() + DYING_SECONDS)
    return answers, [number for number in range(len(ranks)) if number not in answers]


def _died(rank: _Rank) -> dict[str, Any]:
    return {"died": True, "error": f"the process ended\n{_tail(rank.log)}"}


def _stacks(rank: _Rank, number: int) -> str:
    """Where a rank that still runs is: its stacks, as faulthandler writes them into its log."""
    os.kill(rank.pid, signal.SIGUSR1)
    time.sleep(DYING_SECONDS / 4)
    return f"rank {number}:\n{_tail(rank.log)}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-60:])
