"""The trials of a study on this machine: so many at a time, each a forked child, until all are done."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from growlm.errors import (
    DiskError,
    Diverged,
    DriftError,
    GrowLMError,
    LimitReached,
    LockError,
    Preempted,
    RecipeError,
)
from growlm.recipe.schema import Recipe
from growlm.search.space import Value
from growlm.search.study import Ending, Slot, Study, Taken
from growlm.search.trial import OUTPUT, Trial
from growlm.testing.faults import fault_point
from growlm.train.signals import StopRequest

POLL_SECONDS = 0.2
RENEW_SECONDS = 10.0
ATTEMPTS = 3
"""Starts of a trial that gets nowhere before it counts as failed."""
_LOCKED_SECONDS = 2.0
_FATAL = {e.exit_code for e in (RecipeError, DiskError, DriftError)}
"""Exit codes that every other trial would end with too."""
_STOPPED = {e.exit_code for e in (Preempted, LimitReached)}


class Progress(Protocol):
    """What is told of the work while it goes on."""

    def ended(self, taken: Taken, ending: Ending, loss: float | None, why: str) -> None:
        """A trial has come to its end."""

    def tick(self, running: int) -> None:
        """Nothing new; called several times a second."""


@dataclass
class _Job:
    """A trial under way."""

    taken: Taken
    process: Trial
    gpu: str | None
    seen: set[int] = field(default_factory=set)
    attempts: int = 1
    reached: int = 0
    """Tokens at its last start."""
    ending: Ending | None = None
    wait_until: float = 0.0


class Workers:
    """Works on the trials of a study, `count` at a time."""

    def __init__(
        self,
        study: Study,
        recipe_of: Callable[[dict[str, Value], int], Recipe],
        folder: Path,
        count: int,
        gpus: Sequence[str],
        progress: Progress,
    ) -> None:
        """`recipe_of` makes the recipe of a trial of its values and its seed."""
        self._study, self._recipe_of, self._folder = study, recipe_of, folder
        self._free = [gpus[i % len(gpus)] if gpus else None for i in range(count)]
        self._progress = progress
        self._jobs: list[_Job] = []
        self._renewed = time.monotonic()
        self._broken: dict[str, int] = {}

    def work(self, slots: Sequence[Slot], stop: StopRequest) -> None:
        """Until all trials in the slots are done, here or on other machines.

        Raises Preempted after every trial was saved when asked to stop; the error of a trial that all
        others would end with too, as one does that a second trial ends with.
        """
        among = {slot.name for slot in slots}
        look = 0.0
        try:
            while True:
                if stop:
                    raise Preempted(
                        f"stopped: received {stop.name}; the trials under way are saved",
                        fix="the same command continues",
                    )
                if self._free and time.monotonic() >= look:
                    look = time.monotonic() + 1.0
                    while self._free and (taken := self._study.take(among)):
                        self._start(taken)
                    if not self._jobs and not self._study.open(among):
                        return
                before = len(self._jobs)
                for job in list(self._jobs):
                    self._follow(job)
                look = look if len(self._jobs) == before else 0.0
                self._renew()
                self._progress.tick(len(self._jobs))
                time.sleep(POLL_SECONDS)
        finally:
            self._abandon()

    def _start(self, taken: Taken) -> None:
        fault_point("search.after_take")
        try:
            recipe = self._recipe_of(taken.values, taken.seed)
            process = Trial(recipe, self._path(taken), self._free[0])
        except BaseException:
            self._study.release(taken)
            raise
        self._jobs.append(_Job(taken, process, self._free.pop(0)))

    def _path(self, taken: Taken) -> Path:
        return self._folder / f"{taken.number:04d}"

    def _follow(self, job: _Job) -> None:
        """Report what is new of a trial, prune it, and see whether it has ended."""
        if job.wait_until:
            if time.monotonic() >= job.wait_until:
                self._again(job)
            return
        code = job.process.poll()
        for tokens, loss in job.process.losses().items():
            if tokens not in job.seen:
                job.seen.add(tokens)
                if self._study.report(job.taken, tokens, loss) and code is None and job.ending is None:
                    job.ending = "pruned"
                    job.process.stop()
        if code is not None:
            self._ended(job, code)

    def _ended(self, job: _Job, code: int) -> None:
        """Judge a trial by its exit code."""
        losses = job.process.losses()
        last = losses[max(losses)] if losses else math.inf
        if code == 0:
            self._finish(job, "done" if math.isfinite(last) else "diverged", last)
        elif code == Diverged.exit_code:
            self._finish(job, "diverged", math.inf)
        elif job.ending == "pruned":
            self._finish(job, "pruned", last)
        elif code == LockError.exit_code:
            job.wait_until = time.monotonic() + _LOCKED_SECONDS  # the child of a killed search still saves
        elif code in _FATAL or self._is_common(job, code):
            raise _fatal(job, code)
        else:
            self._retry(job, code)

    def _is_common(self, job: _Job, code: int) -> bool:
        """Whether another trial has broken with the same words: then it is no matter of its values."""
        words = job.process.last_words().replace(str(job.process.folder), "")
        if code < 0 or code in _STOPPED or not words:
            return False
        return self._broken.setdefault(words, job.taken.number) != job.taken.number

    def _retry(self, job: _Job, code: int) -> None:
        """Start a trial again that was killed or broke, as long as it gets further each time."""
        tokens = job.process.spent().tokens
        job.attempts = job.attempts + 1 if tokens <= job.reached else 1
        job.reached = max(job.reached, tokens)
        if job.attempts <= ATTEMPTS:
            self._again(job)
            return
        why = f"exit code {code}: {job.process.last_words()}"
        self._finish(job, "failed", None, why)

    def _again(self, job: _Job) -> None:
        job.wait_until = 0.0
        recipe = self._recipe_of(job.taken.values, job.taken.seed)
        job.process = Trial(recipe, job.process.folder, job.gpu)

    def _finish(self, job: _Job, ending: Ending, loss: float | None, why: str = "") -> None:
        fault_point("search.before_finish")
        self._study.finish(job.taken, ending, loss, asdict(job.process.spent()))
        self._remove(job)
        if ending != "failed":
            shutil.rmtree(job.process.folder / "checkpoints", ignore_errors=True)
        fault_point("search.after_finish")
        self._progress.ended(job.taken, ending, loss, why)

    def _remove(self, job: _Job) -> None:
        self._jobs.remove(job)
        self._free.append(job.gpu)

    def _renew(self) -> None:
        """Keep the leases; drop a trial that another machine has taken over meanwhile."""
        if time.monotonic() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = time.monotonic()
        for job in list(self._jobs):
            if not self._study.renew(job.taken):
                self._end(job)
                self._remove(job)

    def _abandon(self) -> None:
        """Stop all trials, wait until they are saved, and leave them to whoever comes next."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.process.stop()
        for job in jobs:
            self._end(job)
        for job in jobs:
            self._study.release(job.taken)

    def _end(self, job: _Job) -> None:
        job.process.stop()
        while job.process.poll() is None:
            time.sleep(POLL_SECONDS)


def _fatal(job: _Job, code: int) -> GrowLMError:
    error = GrowLMError(
        f"trial {job.taken.number} cannot be trained, and so can no other",
        where=str(job.process.folder / OUTPUT),
        why=job.process.last_words(),
        fix="put it right and give the same command again",
    )
    error.exit_code = code
    return error
