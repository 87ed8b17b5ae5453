"""One trial as a process: an ordinary run in a folder of its own, forked, and read through its record."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch

from growlm.errors import GrowLMError, RecipeError
from growlm.recipe.schema import Recipe
from growlm.train.record import RECORD_NAME, RecordReader

OUTPUT = "output.txt"
"""What a trial would have printed."""
_SET_PARENT_DEATH_SIGNAL = 1  # of prctl
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TRAINING = tuple(
    f"growlm.{name}"
    for name in ("recipe", "model", "scaling", "plan", "data", "growth", "checkpoint", "parallel", "train")
)
"""The packages that a run may use a module of."""


@dataclass(frozen=True)
class Spent:
    """What a run has used so far."""

    seconds: float
    flops: float
    tokens: int


class Trial:
    """A run in a forked child of this process. The child trains on one thread, or on one GPU.

    It ends, saved, when this process dies (on Linux), and does not hear the terminal's Ctrl-C.
    """

    def __init__(self, recipe: Recipe, folder: Path, gpu: str | None = None) -> None:
        self.folder, self._weights = folder, recipe.mixture_of(0)
        self._reader = RecordReader(folder / RECORD_NAME)
        self._code: int | None = None
        self.stopping = False
        folder.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        self._pid = _fork()
        if self._pid == 0:
            os._exit(_train(recipe, folder, gpu, parent))

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def stop(self) -> None:
        """Ask it to save and end; once, and not after its end, when its number may be another's."""
        if not self.stopping and self._code is None:
            self.stopping = True
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def losses(self) -> dict[int, float]:
        """Validation loss by tokens, the sources weighted as they are mixed; inf where it was no number."""
        return {
            r["tokens"]: weighted_loss(r["losses"], self._weights)
            for r in self._records()
            if r["kind"] == "valid"
        }

    def spent(self) -> Spent:
        """By the last step on record."""
        last = next((r for r in reversed(self._records()) if r["kind"] == "step"), None)
        if last is None:
            return Spent(0.0, 0.0, 0)
        return Spent(last["train_seconds"], last["flops"], last["tokens"])

    def last_words(self) -> str:
        """The last line that it printed which is not empty."""
        try:
            text = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return next((line for line in reversed(text.splitlines()) if line.strip()), "")

    def _records(self) -> list[dict[str, Any]]:
        try:
            return self._reader.read()
        except RecipeError:  # not there yet
            return []


def weighted_loss(losses: dict[str, float | None], weights: dict[str, float]) -> float:
    """Mean validation loss over the sources, weighted as they are mixed."""
    if any(loss is None for loss in losses.values()):
        return math.inf
    total = sum(weights[source] for source in losses)
    return sum(weights[source] * (loss or 0.0) for source, loss in losses.items()) / total


def gpus() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them, without waking them.

    Raises GrowLMError if this process has used one: then its children cannot.
    """
    if torch.cuda.is_initialized():
        raise GrowLMError(
            "this process has used a GPU, so the trials it forks cannot", fix="search in a new process"
        )
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1")]
    return [str(i) for i in range(torch.cuda.device_count())]


def warm_up() -> None:
    """Import in this process, once, what any trial may import, also late: the trials of a search that takes
    days do not see its code change. Call before this process computes anything: a child does not inherit
    the threads of a pool, and would wait for them for ever."""
    torch.set_num_threads(1)
    import_module("torch.fx.experimental.symbolic_shapes")
    for name in _TRAINING:
        package = import_module(name)
        for module in iter_modules(package.__path__, f"{name}."):
            import_module(module.name)


def _fork() -> int:
    """Fork. A signal that comes meanwhile waits until the child has the default handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with warnings.catch_warnings():  # Python 3.12 warns of threads that numpy has, the child does not use
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _train(recipe: Recipe, folder: Path, gpu: str | None, parent: int) -> int:
    """In the child: train to the end; the exit code."""
    code = 1
    try:
        _detach(folder / OUTPUT, parent)
        sys.argv = ["growlm", "train", "--run", str(folder)]  # the record keeps it, and no password
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        from growlm.train.supervisor import run

        run(recipe, folder)
        code = 0
    except GrowLMError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except BaseException:  # reported, and never let into the parent's stack
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
    return code


def _detach(output: Path, parent: int) -> None:
    """Leave the terminal, end with the parent, write to a file."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)
    file = output.open("a", encoding="utf-8")
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
