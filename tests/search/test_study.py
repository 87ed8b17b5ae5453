"""Who works on which trial: every slot exactly once, whatever joins and whatever dies."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import NopPruner

from growlm.recipe.load import load_recipe
from growlm.search.plan import Plan, make_plan, make_pruner
from growlm.search.proxy import make_proxy
from growlm.search.space import parse_space
from growlm.search.storage import open_storage
from growlm.search.study import Slot, Study, Taken
from tests.checkpoint.helpers import in_child

SEARCH = ["optim.lr=2^-10..2^-5", "model.init_std=0.01,0.02,0.04"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(parse_space(make_proxy(load_recipe("laptop")).recipe, SEARCH), "grid", None, seed=1)


def opened(folder: Path, plan: Plan, name: str = "study") -> Study:
    """The study as one process sees it."""
    storage, lock = open_storage(folder, None)
    return Study(storage, name, plan.distributions(), plan.sampler_of, NopPruner(), lock)


def names(slots: list[Slot]) -> set[str]:
    return {slot.name for slot in slots}


def work_off(folder: Path, plan: Plan) -> None:
    """Take trials until there are none, as one process of several."""
    study, among = opened(folder, plan), names(plan.slots())
    while taken := study.take(among):
        study.finish(taken, "done", float(taken.number), {"pid": os.getpid()})
        time.sleep(0.005)
    os._exit(0)


def forked(folder: Path, plan: Plan) -> int:
    pid = os.fork()
    if pid == 0:
        work_off(folder, plan)
    return pid


def test_two_processes_take_every_point_of_the_grid_once(tmp_path: Path, plan: Plan) -> None:
    study = opened(tmp_path, plan)
    assert study.queue(plan.slots()) == plan.space.size == 18
    assert study.queue(plan.slots()) == 0
    for pid in [forked(tmp_path, plan) for _ in range(2)]:
        assert os.waitpid(pid, 0)[1] == 0
    results = study.results()
    points = [tuple(r.values[axis.name] for axis in plan.space.axes) for r in results]
    assert sorted(points, key=str) == sorted(plan.space.grid(), key=str)
    assert {r.state for r in results} == {"done"}


def test_a_trial_of_a_dead_process_is_taken_up_and_one_of_a_live_process_is_not(
    tmp_path: Path, plan: Plan
) -> None:
    slots = plan.slots()[:2]
    study = opened(tmp_path, plan)
    study.queue(slots)

    def take_and_die() -> None:
        assert opened(tmp_path, plan).take(names(slots)) is not None
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(take_and_die) == -signal.SIGKILL
    first, second = study.take(names(slots)), study.take(names(slots))
    assert first is not None
    assert second is not None
    assert first.number != second.number
    assert {str(t.values) for t in (first, second)} == {str(slot.values) for slot in slots}
    assert opened(tmp_path, plan).take(names(slots)) is None, "both are this process's, which lives"
    study.release(first)
    other = opened(tmp_path, plan)
    again = other.take(names(slots))
    assert again == first
    assert not study.renew(first), "taken over"
    study.finish(first, "done", 1.0, {})
    assert other.open(names(slots)) == 2, "who lost a trial does not end it"
    other.finish(first, "done", 2.0, {})
    assert [r.loss for r in study.results()] == [2.0, None]


def test_on_another_machine_a_lease_that_stands_still_is_taken_over_and_one_that_moves_is_not(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = plan.slots()[:1]
    here = opened(tmp_path, plan)
    here.queue(slots)
    taken = here.take(names(slots))
    assert taken is not None
    monkeypatch.setattr("growlm.search.study._host", lambda: "elsewhere")
    monkeypatch.setattr("growlm.search.study.STALE_SECONDS", 0.3)
    there = opened(tmp_path, plan)
    for _ in range(4):
        assert there.take(names(slots)) is None
        time.sleep(0.1)
        assert here.renew(taken)
    assert there.take(names(slots)) is None
    time.sleep(0.4)
    assert there.take(names(slots)) == taken
    assert not here.renew(taken)


def test_of_two_trials_in_a_slot_the_first_counts(tmp_path: Path, plan: Plan) -> None:
    study, slots = opened(tmp_path, plan), plan.slots()[:1]
    study.queue(slots)
    study._study.enqueue_trial(
        slots[0].values or {}, user_attrs={"slot": slots[0].name, "seed": 1, "prunable": True}
    )
    taken = study.take(names(slots))
    assert taken is not None
    assert taken.number == 0
    assert study.take(names(slots)) is None
    study.finish(taken, "done", 1.0, {})
    assert [r.number for r in study.results()] == [0]


def test_a_failed_trial_is_queued_anew_and_a_diverged_one_is_a_result(tmp_path: Path, plan: Plan) -> None:
    study, slots = opened(tmp_path, plan), plan.slots()[:2]
    study.queue(slots)
    for ending, loss in (("failed", None), ("diverged", float("inf"))):
        taken = study.take(names(slots))
        assert taken is not None
        study.finish(taken, ending, loss, {})  # pyright: ignore[reportArgumentType]
    assert study.queue(slots) == 1
    assert [r.state for r in study.results()] == ["failed", "diverged", "waiting"]


def test_a_lease_is_renewed_only_in_place_of_the_one_that_was_read(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that stalls between reading and writing does not write over the one that took over."""
    slots = plan.slots()[:1]
    here, there = opened(tmp_path, plan), opened(tmp_path, plan)
    here.queue(slots)
    taken = here.take(names(slots))
    assert taken is not None
    read, lost = here._my_lease, []

    def stalled(mine: Taken) -> dict[str, Any] | None:
        lease = read(mine)
        if not lost:
            lost.append(lease)
            monkeypatch.setattr(there, "_is_abandoned", lambda _: True)
            assert there.take(names(slots)) == taken
        return lease

    monkeypatch.setattr(here, "_my_lease", stalled)
    assert not here.renew(taken)
    here.release(taken)
    assert there.renew(taken)
    here.finish(taken, "done", 1.0, {})
    there.finish(taken, "done", 2.0, {})
    there.finish(taken, "done", 3.0, {})
    assert [r.loss for r in there.results()] == [2.0]


def test_of_machines_that_start_or_take_over_at_the_same_instant_one_is_first(
    tmp_path: Path, plan: Plan
) -> None:
    studies = [opened(tmp_path, plan) for _ in range(6)]
    for study in studies:
        study._lock = None  # as on machines that share a database
    slots = plan.slots()[:1]
    studies[0].queue(slots)
    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(lambda pair: pair[1].remember("search", pair[0]), enumerate(studies)))
        assert len(set(kept)) == 1
        takers = list(pool.map(lambda study: study.take(names(slots)), studies))
        assert sum(t is not None for t in takers) == 1
        owner = studies[[t is not None for t in takers].index(True)]
        taken = next(t for t in takers if t is not None)
        owner.release(taken)
        assert sum(t is not None for t in pool.map(lambda study: study.take(names(slots)), studies)) == 1


def test_a_report_draws_nothing(tmp_path: Path, plan: Plan) -> None:
    study, slots = opened(tmp_path, plan), plan.slots()[:1]
    study.queue(slots)
    taken = study.take(names(slots))
    assert taken is not None
    study._study.sampler = None  # pyright: ignore[reportAttributeAccessIssue]
    assert not study.report(taken, 100, 2.5)
    assert study.results()[0].curve == {100: 2.5}


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_sampled_trials_are_as_many_as_asked_and_inside_the_space(tmp_path: Path, sampler: str) -> None:
    proxy = make_proxy(load_recipe("laptop")).recipe
    texts = [
        "optim.lr=2^-10..2^-5",
        "schedule.warmup_steps=8..32",
        "schedule.kind=wsd,cosine",
        "optim.beta2=0.9,0.95",
    ]
    plan = make_plan(parse_space(proxy, texts), sampler, 12, seed=3)  # pyright: ignore[reportArgumentType]
    assert plan.slots() == plan.slots()
    study = opened(tmp_path, plan)
    assert study.queue(plan.slots()) == 12
    seen = []
    while taken := opened(tmp_path, plan).take(names(plan.slots())):  # started anew for each
        seen.append(taken.values)
        study.finish(taken, "done", float(taken.values["optim.lr"]), {})
    assert len(seen) == 12
    assert len({v["optim.lr"] for v in seen}) > 6, "drawn between the notches"
    for values in seen:
        assert 2**-10 <= values["optim.lr"] <= 2**-5
        assert values["schedule.warmup_steps"] in range(8, 33)
        assert values["schedule.kind"] in ("wsd", "cosine")
        assert values["optim.beta2"] in (0.9, 0.95)


def test_the_median_pruner_spares_the_start_and_the_better_half(tmp_path: Path, plan: Plan) -> None:
    storage, lock = open_storage(tmp_path, None)
    pruner = make_pruner("median", tokens=1000, every=100)
    study = Study(storage, "s", plan.distributions(), plan.sampler_of, pruner, lock)
    slots = plan.slots()[:7]
    study.queue(slots)
    for base in (1.0, 2.0, 3.0, 4.0, 5.0):
        taken = study.take(names(slots))
        assert taken is not None
        assert not any(study.report(taken, tokens, base) for tokens in range(100, 1100, 100))
        study.finish(taken, "done", base, {})
    bad, good = study.take(names(slots)), study.take(names(slots))
    assert bad is not None
    assert good is not None
    assert [study.report(bad, tokens, 4.5) for tokens in (100, 200, 300)] == [False, False, True]
    assert [study.report(good, tokens, 2.5) for tokens in (100, 200, 300, 400)] == [False] * 4
    assert study.report(bad, 300, 4.5), "a trial that is taken up again reports what it has reported"
