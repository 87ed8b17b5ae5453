"""The study of a search: which points there are, who works on which, what came of them. Kept by optuna.

Every point is a trial that is queued before the search starts, under a slot that names it, so that a grid
point can neither be lost nor be drawn twice, however many machines join and whenever they are killed:

- a queued trial is taken by one machine (its state changes under a lock);
- who works on a trial renews its lease, written only in place of the lease that was read; a trial whose
  lease stands still, or whose process is gone, is taken up again, with the same values and the same folder;
- of two trials in one slot, which two machines may queue at the same instant, the first counts.
"""

from __future__ import annotations

import fcntl
import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna import Trial, create_study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from growlm.search.space import Value
from growlm.search.storage import exchange, insert
from growlm.testing.faults import fault_point

STALE_SECONDS = 60.0
"""A lease that stands still for so long, watched from here, has lost its owner."""
SUSPECT_SECONDS = 15.0
"""The same for a trial that was taken and never got a lease."""
RUNNING, WAITING = TrialState.RUNNING, TrialState.WAITING

Ending = Literal["done", "pruned", "diverged", "failed"]


@dataclass(frozen=True)
class Slot:
    """A trial to make: its unique name, its values (None: the sampler draws them) and its seed."""

    name: str
    values: dict[str, Value] | None
    seed: int
    prunable: bool = True


@dataclass(frozen=True)
class Taken:
    """A trial that this process works on."""

    id: int
    number: int
    values: dict[str, Value]
    seed: int
    prunable: bool


@dataclass(frozen=True)
class Result:
    """A trial as the study knows it. `curve`: validation loss at every look, by tokens."""

    number: int
    slot: str
    values: dict[str, Value]
    seed: int
    state: str
    loss: float | None
    curve: dict[int, float]
    seconds: float
    flops: float
    tokens: int

    @property
    def order(self) -> float:
        """What results are ordered by: the loss, inf without one."""
        return math.inf if self.loss is None else self.loss

    @property
    def measured(self) -> bool:
        """Whether it says what its values are worth: a trial that failed or was pruned does not."""
        return self.state in ("done", "diverged")


class Study:
    """One study in a storage that this process shares with others."""

    def __init__(
        self,
        storage: RDBStorage,
        name: str,
        distributions: dict[str, BaseDistribution],
        sampler_of: Callable[[int], BaseSampler],
        pruner: BasePruner,
        lock: Path | None,
    ) -> None:
        """Open the study, or make it.

        `sampler_of` makes the sampler that draws a trial, by its number: one that lived on would draw the
        same points again on every machine and after every start. `lock` is a file beside a SQLite database,
        which locks no rows.
        """
        self._study = create_study(
            storage=storage,
            study_name=name,
            sampler=sampler_of(0),
            pruner=pruner,
            direction="minimize",
            load_if_exists=True,
        )
        self._storage, self._lock = storage, lock
        self._id = storage.get_study_id_from_name(name)
        self._distributions, self._sampler_of = distributions, sampler_of
        self._me = {
            "owner": uuid.uuid4().hex,
            "host": _host(),
            "pid": os.getpid(),
            "born": _born(os.getpid()),
        }
        self._beats: dict[int, tuple[Any, float]] = {}

    # --- facts about the search ---

    def fact(self, name: str) -> Any:
        """What was remembered under `name`; None if nothing was."""
        return self._storage.get_study_user_attrs(self._id).get(name)

    def remember(self, name: str, value: Any) -> Any:
        """Keep a fact (JSON) with the study, unless there is one; the one that is kept. Of several processes
        that remember at the same instant, one is first for all."""
        if self.fact(name) is None:
            insert(self._storage, "study", self._id, name, value)
        return self.fact(name)

    # --- trials ---

    def queue(self, slots: Sequence[Slot]) -> int:
        """Queue the slots that have no trial yet, or only failed ones; how many that were."""
        with self._alone():
            there = {t.user_attrs["slot"] for t in self._trials() if t.state != TrialState.FAIL}
            missing = [slot for slot in slots if slot.name not in there]
            for slot in missing:
                attrs = {"slot": slot.name, "seed": slot.seed, "prunable": slot.prunable}
                self._study.enqueue_trial(slot.values or {}, user_attrs=attrs)
                fault_point("search.after_queue")
        return len(missing)

    def take(self, among: set[str]) -> Taken | None:
        """A trial in one of the slots `among` to work on; None if all are done or in other hands."""
        with self._alone():
            trials = [t for t in self._trials() if t.user_attrs["slot"] in among]
            first: dict[str, int] = {}
            for t in trials:
                if t.state != TrialState.FAIL:
                    first.setdefault(t.user_attrs["slot"], t.number)
            for t in trials:
                if t.state in (RUNNING, WAITING) and self._take(t, first[t.user_attrs["slot"]]):
                    return self._claim(t)
        return None

    def renew(self, taken: Taken) -> bool:
        """Say that this process still works on a trial; False if another has taken it over."""
        lease = self._my_lease(taken)
        return lease is not None and self._lease(taken.id, lease, self._me | {"beat": lease["beat"] + 1})

    def release(self, taken: Taken) -> None:
        """Leave a trial, to be taken up by whoever comes next; not if another has taken it over."""
        if lease := self._my_lease(taken):
            self._lease(taken.id, lease, {"owner": "", "beat": lease["beat"] + 1})

    def report(self, taken: Taken, tokens: int, loss: float) -> bool:
        """Note the loss after so many tokens; whether the trial is to be pruned."""
        if tokens not in self._storage.get_trial(taken.id).intermediate_values:
            self._storage.set_trial_intermediate_value(taken.id, tokens, loss)
        if not taken.prunable:
            return False
        self._study.get_trials(deepcopy=False)  # or the pruner knows no trial that another process queued
        return self._study.pruner.prune(self._study, self._storage.get_trial(taken.id))

    def finish(self, taken: Taken, ending: Ending, loss: float | None, spent: dict[str, Any]) -> None:
        """Put the end of a trial on record, unless another process has taken it over."""
        if not self.renew(taken):
            return
        states = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        values = None if loss is None else [loss]
        with suppress(UpdateFinishedTrialError):  # taken over and finished since
            for key, value in (spent | {"ending": ending}).items():
                self._storage.set_trial_user_attr(taken.id, key, value)
            self._storage.set_trial_state_values(taken.id, states.get(ending, TrialState.COMPLETE), values)

    def results(self) -> list[Result]:
        """Every trial but duplicates, by number."""
        found, counted = [], set[str]()
        for t in self._trials():
            if t.state == TrialState.FAIL and "ending" in t.user_attrs:
                found.append(_result(t))
            elif t.state != TrialState.FAIL and t.user_attrs["slot"] not in counted:
                counted.add(t.user_attrs["slot"])
                found.append(_result(t))
        return found

    def open(self, among: set[str]) -> int:
        """How many of these slots wait or are being worked on."""
        return sum(t.state in (RUNNING, WAITING) and t.user_attrs["slot"] in among for t in self._trials())

    def _trials(self) -> Iterable[FrozenTrial]:
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        return (t for t in trials if "slot" in t.user_attrs)

    def _take(self, t: FrozenTrial, first: int) -> bool:
        """Whether an open trial is now this process's. `first`: number of the first trial in its slot."""
        before = t.user_attrs.get("lease")
        try:
            if t.state is WAITING and t.number != first:
                self._storage.set_trial_state_values(t._trial_id, TrialState.FAIL)
                return False
            if t.state is WAITING and not self._storage.set_trial_state_values(t._trial_id, RUNNING):
                return False
            if t.state is RUNNING and not self._is_abandoned(t):
                return False
        except UpdateFinishedTrialError:  # by another process since it was listed
            return False
        return self._lease(t._trial_id, before, self._me | {"beat": before["beat"] + 1 if before else 0})

    def _claim(self, t: FrozenTrial) -> Taken:
        self._study.sampler = self._sampler_of(t.number)
        self._study.get_trials(deepcopy=False)  # or the study knows no trial that another process queued
        trial = Trial(self._study, t._trial_id)
        for name, distribution in self._distributions.items():
            _draw(trial, name, distribution)
        return Taken(
            t._trial_id, t.number, dict(trial.params), t.user_attrs["seed"], t.user_attrs["prunable"]
        )

    def _my_lease(self, taken: Taken) -> dict[str, Any] | None:
        lease = self._storage.get_trial_user_attrs(taken.id).get("lease", {})
        return lease if lease.get("owner") == self._me["owner"] else None

    def _lease(self, trial: int, before: dict[str, Any] | None, now: dict[str, Any]) -> bool:
        """Write a lease in place of `before`; False if it is no longer that."""
        if before is None:
            return insert(self._storage, "trial", trial, "lease", now)
        return exchange(self._storage, "trial", trial, "lease", before, now)

    def _is_abandoned(self, t: FrozenTrial) -> bool:
        """Whether nobody works on a running trial any more."""
        lease = t.user_attrs.get("lease")
        if lease and lease["owner"] in ("", self._me["owner"]):
            return lease["owner"] == ""
        if lease and lease["host"] == self._me["host"] and lease["born"]:
            return _born(lease["pid"]) != lease["born"]
        beat = (lease["owner"], lease["beat"]) if lease else None
        if t.number not in self._beats or self._beats[t.number][0] != beat:
            self._beats[t.number] = beat, time.monotonic()
        return time.monotonic() - self._beats[t.number][1] > (STALE_SECONDS if lease else SUSPECT_SECONDS)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Among the processes of this machine that share a SQLite database."""
        if self._lock is None:
            yield
            return
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _draw(trial: Trial, name: str, d: BaseDistribution) -> None:
    """Give a trial its value of one field: the queued one, the one it was given before, or a sampled one."""
    if isinstance(d, FloatDistribution):
        trial.suggest_float(name, d.low, d.high, log=d.log)
    elif isinstance(d, IntDistribution):
        trial.suggest_int(name, d.low, d.high, log=d.log)
    elif isinstance(d, CategoricalDistribution):
        trial.suggest_categorical(name, d.choices)


def _result(t: FrozenTrial) -> Result:
    attrs = t.user_attrs
    return Result(
        number=t.number,
        slot=attrs["slot"],
        values=dict(t.params),
        seed=attrs["seed"],
        state=attrs.get("ending", t.state.name.lower()),
        loss=t.value if t.state == TrialState.COMPLETE else None,
        curve={int(tokens): loss for tokens, loss in t.intermediate_values.items()},
        seconds=attrs.get("seconds", 0.0),
        flops=attrs.get("flops", 0.0),
        tokens=attrs.get("tokens", 0),
    )


def _host() -> str:
    """This machine, since it was last started."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return socket.gethostname() + (f"/{boot.read_text().strip()}" if boot.exists() else "")


def _born(pid: int) -> str:
    """When a process of this machine was started; "" if there is none, or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
