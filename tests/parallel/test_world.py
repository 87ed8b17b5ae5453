"""Ranks that meet, agree, fail together and leave; and what can be wrong when they want to meet."""

import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from growlm.errors import GrowLMError, RankError, RecipeError
from growlm.parallel.world import TCPStore, join
from growlm.testing.faults import fault_point
from growlm.testing.ranks import Ranks, RanksError, fork_ranks
from tests.parallel import world_jobs as jobs

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def set_place(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


# --- one process ----------------------------------------------------------------------------------------


def test_one_process_is_a_world_without_a_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for launched in (False, True):
        if launched:
            set_place(monkeypatch, RANK=0, WORLD_SIZE=1, LOCAL_RANK=0)
        with join("cpu") as world:
            assert (world.rank, world.size, world.main, world.device) == (0, 1, True, torch.device("cpu"))
            assert not dist.is_initialized()
            assert world.exchange({"a": [1]}) == [{"a": [1]}]
            assert world.control(True, False) == (True, False)
            world.barrier()
            world.same({"recipe": "r"})
            with pytest.raises(ValueError, match="as it was"), world.together():
                raise ValueError("as it was")


# --- ranks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_rank_knows_its_place(ranks: Ranks, size: int) -> None:
    for rank, place in enumerate(ranks.run(jobs.place, size=size)):
        expected = {"rank": rank, "size": size, "main": rank == 0, "device": "cpu", "group": size > 1}
        assert place == expected


def test_all_learn_what_each_has_to_say(ranks: Ranks) -> None:
    values = [None, "五" * 1000, {"x": [1.5, float("inf")], "y": {}}, 0.1 + 0.2]
    told = ranks.run(jobs.agree, values)
    assert told == [[values, [True, False, True]]] * 4


@pytest.mark.parametrize(
    ("kind", "failing", "code", "where"),
    [
        ("DataError", [0], 65, "file DataError"),
        ("DataError", [2], 65, "rank 2, file DataError"),
        ("DriftError", [1, 3], 78, "rank 1, file DriftError"),
        ("RecipeError", [0, 1, 2, 3], 2, "file RecipeError"),
        ("LimitReached", [3], 79, "rank 3, file LimitReached"),
        ("ValueError", [1], 1, "rank 1"),
        ("ValueError", [0, 1], 1, ""),
    ],
)
def test_the_error_of_one_rank_ends_all(
    ranks: Ranks, kind: str, failing: list[int], code: int, where: str
) -> None:
    main, *others = ranks.run(jobs.fail, kind, failing)
    assert others == [{"kind": "Elsewhere", "code": code, "text": "another rank failed"}] * 3
    assert main["code"] == code
    if kind == "ValueError":
        assert main["kind"] == ("ValueError" if 0 in failing else "GrowLMError")
        assert ("unexpected ValueError: broken" in main["text"]) == (0 not in failing)
    else:
        assert main == {
            "kind": kind,
            "code": code,
            "text": f"broken\n  where: {where}\n  fix:   mend it",
        }


def test_nobody_fails_where_nobody_failed(ranks: Ranks) -> None:
    assert ranks.run(jobs.fail, "DataError", []) == [{"kind": ""}] * 4


def test_a_rank_that_differs_is_named_with_both_values(ranks: Ranks) -> None:
    facts = [{"recipe": "a", "torch": "2.13"} for _ in range(4)]
    assert ranks.run(jobs.same, facts) == [{"kind": ""}] * 4
    facts[3]["recipe"] = "b"
    facts[1]["torch"] = facts[2]["torch"] = "2.11"
    main, *others = ranks.run(jobs.same, facts)
    assert others == [{"kind": "Elsewhere", "code": 2, "text": "another rank failed"}] * 3
    assert (main["kind"], main["code"]) == ("RecipeError", 2)
    assert "rank 3 has recipe b, rank 0 has a" in main["text"]
    assert "each of ranks 1, 2 has torch 2.11, rank 0 has 2.13" in main["text"]


def test_ranks_leave_in_any_order(ranks: Ranks) -> None:
    draw = random.Random(0)
    for _ in range(5):
        ranks.run(jobs.leave, [draw.choice([0, 0.05, 0.2]) for _ in range(4)])


def test_ranks_that_torchrun_starts_again_meet_although_its_store_remembers(tmp_path: Path) -> None:
    board = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def job() -> None:
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(board.port)}
        try:
            with join("cpu", 10) as world:
                fault_point("met")
                world.barrier()
                print(world.exchange(world.rank))
        except (RuntimeError, RankError):  # torn out of a collective, or on the way to meet the one that died
            sys.exit(1)

    assert fork_ranks(3, job, faults={1: "met:kill"}, timeout=60) == [1, -9, 1]
    assert fork_ranks(3, job, logs=tmp_path, timeout=60) == [0, 0, 0]
    assert (tmp_path / "rank-2.log").read_text().splitlines()[-1] == "[0, 1, 2]"


# --- what can be wrong when they want to meet -----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RANK": 0}, "WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set, RANK=0"),
        ({"WORLD_SIZE": 2}, "RANK, LOCAL_RANK"),
        ({"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0}, "MASTER_ADDR, MASTER_PORT not set"),
        ({"RANK": 2, "WORLD_SIZE": 2, "LOCAL_RANK": 0}, "do not fit"),
        ({"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 1}, "do not fit"),
        ({"RANK": -1, "WORLD_SIZE": 2, "LOCAL_RANK": 0}, "do not fit"),
        ({"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_PORT": 99999}, "do not fit"),
        ({"RANK": "first", "WORLD_SIZE": 2, "LOCAL_RANK": 0}, "not whole numbers: RANK=first"),
    ],
)
def test_half_an_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, object], message: str
) -> None:
    if len(given) > 3 or "do not fit" in message or "numbers" in message:
        set_place(monkeypatch, MASTER_ADDR="127.0.0.1", MASTER_PORT=29500)
    set_place(monkeypatch, **given)
    with pytest.raises(RecipeError, match="environment") as error, join("cpu"):
        pass
    assert message in error.value.why


def test_a_taken_port_is_named(monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    set_place(
        monkeypatch, RANK=0, WORLD_SIZE=2, LOCAL_RANK=0, MASTER_ADDR="127.0.0.1", MASTER_PORT=taken_port
    )
    with pytest.raises(RankError, match="port where the ranks meet is taken") as error, join("cpu", 5):
        pass
    assert error.value.where == f"127.0.0.1:{taken_port}"
    assert "MASTER_PORT" in error.value.fix


@pytest.mark.parametrize(("late", "timeout"), [(3, 2), (0, 1)])
def test_a_rank_that_does_not_come_is_counted(tmp_path: Path, late: int, timeout: float) -> None:
    def job() -> None:
        if os.environ["RANK"] == str(late):
            return
        try:
            with join("cpu", timeout):
                raise AssertionError("met without all")
        except RankError as error:
            print(error)
            sys.exit(error.exit_code)

    size = 4 if late else 2
    assert fork_ranks(size, job, logs=tmp_path) == [int(rank != late) for rank in range(size)]
    first = (tmp_path / f"rank-{0 if late else 1}.log").read_text()
    expected = "only 3 of 4 ranks came within 2 s" if late else "rank 1 did not find rank 0 within 1 s"
    assert first.startswith(expected)


def test_a_host_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_place(
        monkeypatch, RANK=1, WORLD_SIZE=2, LOCAL_RANK=0, MASTER_ADDR="no.host.invalid", MASTER_PORT=1234
    )
    with pytest.raises(GrowLMError, match="did not find rank 0") as error, join("cpu", 0.2):
        pass
    assert error.value.where == "no.host.invalid:1234"


def test_more_ranks_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_place(monkeypatch, RANK=64, WORLD_SIZE=65, LOCAL_RANK=64, MASTER_ADDR="127.0.0.1", MASTER_PORT=29500)
    message = "no CUDA device is visible" if not torch.cuda.is_available() else "local rank 64 has no CUDA"
    with pytest.raises(RecipeError, match=message), join("cuda"):
        pass


# --- the ranks of the tests themselves ------------------------------------------------------------------


def test_a_job_that_fails_brings_the_tracebacks_of_its_ranks(ranks: Ranks) -> None:
    with pytest.raises(RanksError, match="DataError: not what it was") as error:
        ranks.run(jobs.raise_in_one, 2)
    assert "in raise_in_one" in str(error.value)
    assert len(ranks.run(jobs.place)) == 4


def test_a_rank_that_dies_is_named_and_replaced(ranks: Ranks) -> None:
    with pytest.raises(RanksError, match="rank 1: the process ended"):
        ranks.run(jobs.die, 1)
    assert len(ranks.run(jobs.place)) == 4


def test_a_job_that_hangs_is_killed_and_shows_where(ranks: Ranks) -> None:
    started = time.monotonic()
    with pytest.raises(RanksError, match=r"no answer from rank 0, 1, 2, 3 within 0\.5 s") as error:
        ranks.run(jobs.sleep, 2, timeout=0.5)
    assert time.monotonic() - started < 3
    assert 'world_jobs.py", line' in str(error.value)
    assert "in sleep" in str(error.value)
    assert "in control" in str(error.value)
    assert len(ranks.run(jobs.place)) == 4


def test_the_environment_of_a_job_ends_with_it(ranks: Ranks) -> None:
    assert ranks.run(jobs.environment, "GROWLM_X", size=2, env={"GROWLM_X": "1"}) == ["1", "1"]
    assert ranks.run(jobs.environment, "GROWLM_X", size=2) == [None, None]


def test_forked_ranks_end_with_their_exit_codes(tmp_path: Path) -> None:
    def job() -> None:
        print("rank", os.environ["RANK"])
        if os.environ["RANK"] == "2":
            raise SystemExit(75)
        fault_point("here")

    assert fork_ranks(3, job, faults={1: "here:kill"}, logs=tmp_path) == [0, -9, 75]
    assert (tmp_path / "rank-2.log").read_text() == "rank 2\n"
    assert fork_ranks(2, lambda: time.sleep(60), timeout=0.2) == [-9, -9]
