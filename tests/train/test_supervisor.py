"""What a run refuses, survives and says: locks, signals, money, its record."""

import json
import os
import signal
from pathlib import Path

import pytest

from growlm.checkpoint.lock import RunLock
from growlm.errors import (
    DataError,
    LimitReached,
    LockError,
    Preempted,
    RecipeError,
)
from growlm.train import loop
from growlm.train.session import Session
from growlm.train.signals import StopRequest
from growlm.train.state import TrainState
from growlm.train.supervisor import run
from growlm.train.tally import Tally
from tests.checkpoint.helpers import in_child
from tests.train.conftest import MakeRecipe, Straight
from tests.train.helpers import (
    ONE_STAGE,
    content,
    newest,
    outcome,
    records,
)

# --- before anything is touched -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "error", "what"),
    [
        (["data.path=nowhere"], DataError, "no"),
        (["model.vocab_size=300"], RecipeError, "320 ids"),
        (["data.mixture={de = 1}"], RecipeError, "de"),
        (["stages.words.seq_len=8192", "stages.words.tokens=1_000_000"], DataError, "shorter than one"),
    ],
)
def test_what_cannot_work_leaves_no_folder(
    overrides: list[str], error: type[Exception], what: str, recipe: MakeRecipe, tmp_path: Path
) -> None:
    with pytest.raises(error, match=what):
        run(recipe(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_runs_in_one_folder(recipe: MakeRecipe, begun: Path) -> None:
    before = content(begun), (begun / "metrics.jsonl").read_bytes()
    with RunLock(begun):
        assert in_child(lambda: run(recipe(), begun)) == LockError.exit_code == 77
    assert (content(begun), (begun / "metrics.jsonl").read_bytes()) == before


# --- asked to stop --------------------------------------------------------------------------------------


def stop_at(patch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal while it computes a step (1-based)."""
    honest = loop.step

    def signalled(session: Session, state: TrainState, tally: Tally, started: float) -> None:
        if state.progress.step + 1 == step:
            os.kill(os.getpid(), number)
        honest(session, state, tally, started)

    patch.setattr(loop, "step", signalled)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 7, 9, 21])
def test_a_signal_finishes_the_step_saves_and_the_same_command_continues(
    number: signal.Signals,
    step: int,
    recipe: MakeRecipe,
    straight: Straight,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_at(patch, step, number)
        with pytest.raises(Preempted, match=f"step {step}: received {number.name}") as error:
            run(recipe(), tmp_path)
    assert error.value.exit_code == 75
    assert signal.getsignal(number) is before
    assert records(tmp_path, "end")[-1]["status"] == "preempted"
    manifest = newest(tmp_path).manifest
    assert (manifest.step, manifest.boundary) == (step, "before_growth" if step in (7, 21) else None)
    run(recipe(), tmp_path)
    assert outcome(tmp_path) == straight()


def test_a_signal_in_the_very_last_step_lets_the_run_be_done(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 24)
    assert run(recipe(*ONE_STAGE), tmp_path).step == 24
    assert records(tmp_path, "end")[-1]["status"] == "done"


def test_a_second_signal_exits_at_once() -> None:
    def twice() -> None:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.name == "SIGINT"
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("still here")

    assert in_child(twice) == 128 + signal.SIGTERM


def test_the_cost_limit_stops_and_a_higher_one_continues(
    recipe: MakeRecipe, straight: Straight, tmp_path: Path
) -> None:
    expensive = "budget.price_per_hour=1e9"
    with pytest.raises(LimitReached, match="the limit is 0") as error:
        run(recipe(expensive, "budget.max_cost=0.01"), tmp_path)
    assert error.value.exit_code == 79
    assert "budget.max_cost" in error.value.fix
    assert newest(tmp_path).manifest.step == 1
    run(recipe(expensive, "budget.max_cost=1e12"), tmp_path)
    assert outcome(tmp_path) == straight()


# --- the record -----------------------------------------------------------------------------------------


def test_the_record_tells_the_whole_run(recipe: MakeRecipe, begun: Path) -> None:
    run(recipe(), begun)
    assert [r["incarnation"] for r in records(begun, "start")] == [1, 2]
    assert [(r["stage"], r["step"]) for r in records(begun, "growth")] == [(1, 7), (2, 15), (3, 21)]
    assert {r["stage"] for r in records(begun, "stage")} == {0, 1, 2, 3}
    assert [r["status"] for r in records(begun, "end")] == ["done"]
    lines = [json.loads(line) for line in (begun / "metrics.jsonl").read_text().splitlines()]
    assert all({"kind", "time", "incarnation"} <= line.keys() for line in lines)
    seconds = [r["train_seconds"] for r in records(begun, "step")]
    assert seconds == sorted(seconds)
