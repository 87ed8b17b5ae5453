"""A frozen rank ends itself and the others, and all of them say where they were."""

import ctypes
import os
import time
from pathlib import Path

import pytest

from growlm.parallel.watchdog import Watchdog, read_stacks
from growlm.parallel.world import join
from growlm.testing.ranks import fork_ranks

TIMEOUTS = {"setup": 60.0, "step": 1.0, "save": 30.0}


def dream() -> None:
    time.sleep(600)


def test_a_rank_that_sleeps_for_ever_ends_all_with_their_stacks(tmp_path: Path) -> None:
    stacks = tmp_path / "stacks"

    def job() -> None:
        with join("cpu") as world, Watchdog(stacks, world.rank, TIMEOUTS) as watchdog:
            for step in range(5):
                watchdog.arm("step", step)
                if step == 3 and world.rank == 1:
                    dream()
                world.barrier()

    started = time.monotonic()
    assert fork_ranks(2, job, logs=tmp_path) == [1, 1]
    assert time.monotonic() - started < TIMEOUTS["step"] + 2 + 1  # and a second to fork and to join
    for rank, place in ((0, "in barrier"), (1, "in dream")):
        assert place in (stacks / f"rank-{rank:05d}.txt").read_text()
        assert f"rank {rank} froze in phase step after step 3" in (tmp_path / f"rank-{rank}.log").read_text()

    first, second = read_stacks(stacks)
    assert [(f.rank, f.phase, f.step) for f in (first, second)] == [(0, "step", 3), (1, "step", 3)]
    assert abs(second.since - time.time()) < 10
    assert "in dream" in Path(second.path).read_text()
    assert read_stacks(stacks) == [], "each is told once"
    assert len(list(stacks.iterdir())) == 2


def test_a_rank_that_holds_the_interpreter_ends_too(tmp_path: Path) -> None:
    def job() -> None:
        with Watchdog(tmp_path / "stacks", 0, TIMEOUTS) as watchdog:
            watchdog.arm("step", 7)
            time.sleep(0.4)
            ctypes.PyDLL(None).sleep(600)

    started = time.monotonic()
    assert fork_ranks(1, job, logs=tmp_path) == [1]
    assert time.monotonic() - started < 5
    (frozen,) = read_stacks(tmp_path / "stacks")
    assert (frozen.phase, frozen.step) == ("step", 7)
    assert "in job" in Path(frozen.path).read_text()


def test_before_there_is_a_folder_the_stacks_go_to_stderr(tmp_path: Path) -> None:
    def job() -> None:
        with Watchdog(None, 0, {"setup": 0.2}):
            dream()

    assert fork_ranks(1, job, logs=tmp_path) == [1]
    log = (tmp_path / "rank-0.log").read_text()
    assert "in dream" in log
    assert "rank 0 froze in phase setup" in log


def test_phases_have_their_own_time_and_what_moves_on_is_left_alone(tmp_path: Path) -> None:
    with Watchdog(None, 0, {"setup": 60.0, "step": 0.3, "save": 5.0}) as watchdog:
        watchdog.attach(tmp_path)
        for step in range(4):
            watchdog.arm("step", step)
            time.sleep(0.2)
        with watchdog.phase("save", 4):
            time.sleep(0.6)
        time.sleep(0.2)
        with pytest.raises(KeyError):
            watchdog.arm("party")
    time.sleep(0.4)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_was_killed_leaves_nothing_to_tell(tmp_path: Path) -> None:
    def job() -> None:
        with Watchdog(tmp_path, 0, TIMEOUTS):
            time.sleep(0.1)
            os.kill(os.getpid(), 9)

    assert fork_ranks(1, job) == [-9]
    assert [p.name for p in tmp_path.iterdir()] == ["rank-00000.txt"]
    assert read_stacks(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_arming_costs_next_to_nothing() -> None:
    with Watchdog(None, 0, {"setup": 60.0, "step": 60.0}) as watchdog:
        started = time.perf_counter()
        for step in range(10_000):
            watchdog.arm("step", step)
        assert (time.perf_counter() - started) / 10_000 < 50e-6
