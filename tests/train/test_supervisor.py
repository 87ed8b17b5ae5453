"""What a run refuses, survives and says: drift, locks, signals, full disks, damage, money."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from growlm.checkpoint.lock import RunLock
from growlm.data.mixture import Mixture
from growlm.data.prepare import prepare
from growlm.errors import (
    CheckpointError,
    DataError,
    DiskError,
    DriftError,
    LimitReached,
    LockError,
    Preempted,
    RecipeError,
)
from growlm.testing.tiny import VOCABULARY, write_corpus
from growlm.train import loop
from growlm.train.session import Session
from growlm.train.signals import StopRequest
from growlm.train.state import TrainState
from growlm.train.supervisor import run
from tests.checkpoint.helpers import in_child
from tests.train.conftest import MakeRecipe
from tests.train.helpers import (
    ONE_STAGE,
    Outcome,
    checkpoint_names,
    fault,
    killed,
    messages,
    newest,
    outcome,
    records,
    steps,
)

Straight = Callable[..., Outcome]


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the record and the lock, which also tell of the refusal."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in ("metrics.jsonl", "lock"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def begun(recipe: MakeRecipe, tmp_path: Path) -> Path:
    """A run that was killed in its second stage, at step 11, and saved at step 10."""
    killed(recipe(), tmp_path / "begun", "train.after_step:kill@11")
    return tmp_path / "begun"


def refused(changed: MakeRecipe, override: str, folder: Path, *, accept_changes: bool = False) -> DriftError:
    before = content(folder)
    with pytest.raises(DriftError) as error:
        run(changed(override), folder, accept_changes=accept_changes)
    assert error.value.exit_code == 78
    assert content(folder) == before
    return error.value


# --- drift ---------------------------------------------------------------------------------------------


def test_a_free_change_goes_on_with_the_same_bits(
    recipe: MakeRecipe, straight: Straight, begun: Path
) -> None:
    run(recipe("checkpoint.keep=3", "budget.price_per_hour=2.0"), begun)
    assert outcome(begun) == straight()
    assert any("checkpoint.keep: 2 -> 3" in message for message in messages(begun, "info"))
    assert records(begun, "verified")[-1]["identical"]
    assert records(begun, "step")[-1]["cost"] > 0


def test_a_flagged_change_needs_the_flag_and_is_logged(recipe: MakeRecipe, begun: Path) -> None:
    error = refused(recipe, "optim.lr=1e-3", begun)
    assert "optim.lr: 0.005 -> 0.001" in error.what
    assert "--accept-changes" in error.fix
    run(recipe("optim.lr=1e-3"), begun, accept_changes=True)
    assert any("optim.lr: 0.005 -> 0.001" in message for message in messages(begun))
    assert records(begun, "step")[10]["lr"] == 1e-3
    assert records(begun, "verified") == [], "another run has nothing to be compared with"
    run(recipe("optim.lr=1e-3"), begun)  # from now on this is its recipe


@pytest.mark.parametrize(
    "override",
    [
        "seed=8",
        "model.init_std=0.03",
        "stages.masked.batch_size=2",
        "stages.masked.seq_len=16",
        "stages.masked.mixture={en = 1, zh = 1}",
        "data.mixture.en=60",
        "stages.masked.d_ff=64",
        "stages.small.tokens=1024",
        "stages.words.seq_len=64",  # a new longest context is another order of the whole run
    ],
)
def test_a_forbidden_change_is_refused_even_with_the_flag(
    override: str, recipe: MakeRecipe, begun: Path
) -> None:
    error = refused(recipe, override, begun, accept_changes=True)
    assert "new stage" in error.fix


def test_a_stage_cannot_end_before_where_it_is(recipe: MakeRecipe, begun: Path) -> None:
    fewer = "stages.masked.tokens=256"  # 2 steps, 3 are done
    ramp = "stages.masked.growth.ramp_steps=2"
    with pytest.raises(DriftError, match=r"ramp_steps|2 steps, and 3"):
        run(recipe(fewer, ramp), begun, accept_changes=True)
    one = recipe(*ONE_STAGE)
    folder = begun.with_name("one")
    killed(one, folder, "train.after_step:kill@10")
    error = refused(lambda *o: recipe(*ONE_STAGE, *o), "stages.only.tokens=512", folder, accept_changes=True)
    assert "4 steps, and 9 of it are done" in error.what
    run(recipe(*ONE_STAGE, "stages.only.tokens=1152"), folder, accept_changes=True)
    assert len(steps(folder)) == 9


def test_a_finished_run_goes_on_when_its_last_stage_is_made_longer(
    recipe: MakeRecipe, tmp_path: Path
) -> None:
    run(recipe(*ONE_STAGE, "stages.only.tokens=1152", "schedule.decay_share=0.0"), tmp_path / "run")
    longer = recipe(*ONE_STAGE, "schedule.decay_share=0.0")
    run(longer, tmp_path / "run", accept_changes=True)
    run(longer, tmp_path / "straight")
    assert steps(tmp_path / "run") == steps(tmp_path / "straight")


def test_a_finished_run_has_nothing_to_do(recipe: MakeRecipe, tmp_path: Path) -> None:
    run(recipe(*ONE_STAGE), tmp_path)
    before = content(tmp_path)
    assert run(recipe(*ONE_STAGE), tmp_path).step == 24
    assert content(tmp_path) == before


def test_other_data_is_refused(recipe: MakeRecipe, begun: Path, tmp_path: Path) -> None:
    text = write_corpus(tmp_path / "text", documents=100)
    tokenizer = Path(recipe().data.path) / "tokenizer.json"
    prepare(tmp_path / "other", text, tokenizer=tokenizer, validation_share=0.1)
    error = refused(recipe, f"data.path={tmp_path / 'other'}", begun)
    assert "data" in error.what
    run(recipe(f"data.path={tmp_path / 'other'}"), begun, accept_changes=True)
    assert any("the data changed" in message for message in messages(begun))
    assert records(begun, "verified") == []


def test_the_same_data_elsewhere_is_the_same(
    recipe: MakeRecipe, straight: Straight, begun: Path, tmp_path: Path
) -> None:
    shutil.copytree(recipe().data.path, tmp_path / "moved")
    run(recipe(f"data.path={tmp_path / 'moved'}"), begun)
    assert outcome(begun) == straight()


def test_another_tokenizer_is_refused_even_with_the_flag(
    recipe: MakeRecipe, begun: Path, tmp_path: Path
) -> None:
    prepare(tmp_path / "other", write_corpus(tmp_path / "text"), vocab_size=VOCABULARY - 9)
    error = refused(recipe, f"data.path={tmp_path / 'other'}", begun, accept_changes=True)
    assert "tokenizer" in error.what


def test_another_number_of_threads_is_a_warning(recipe: MakeRecipe, tmp_path: Path) -> None:
    """Not from the recipe, which would be a change of it, but from a machine with other cores."""
    made = recipe(*ONE_STAGE).model_copy(
        update={"train": recipe().train.model_copy(update={"threads": None})}
    )
    killed(made, tmp_path, "train.after_step:kill@4")
    torch.set_num_threads(2)
    try:
        run(made, tmp_path)
    finally:
        torch.set_num_threads(1)
    assert any("threads was 1, is 2" in message for message in messages(tmp_path))
    assert records(tmp_path, "verified") == []


# --- before anything is touched ------------------------------------------------------------------------


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


# --- disks ---------------------------------------------------------------------------------------------


def test_a_full_disk_in_mid_stage_costs_a_save_not_the_run(
    recipe: MakeRecipe, straight: Straight, tmp_path: Path
) -> None:
    with fault("checkpoint.write:enospc@4"):
        run(recipe(), tmp_path)
    assert outcome(tmp_path) == straight()
    (message,) = messages(tmp_path)
    assert message.startswith("not saved, training goes on")
    assert "No space left" in message
    assert [r["step"] for r in records(tmp_path, "save")][:2] == [6, 7]


def test_a_full_disk_at_the_end_of_a_stage_stops_and_the_older_checkpoint_stands(
    recipe: MakeRecipe, straight: Straight, tmp_path: Path
) -> None:
    with fault("checkpoint.before_manifest:enospc@3"), pytest.raises(DiskError) as error:
        run(recipe(), tmp_path)
    assert error.value.exit_code == 76
    assert records(tmp_path, "end")[-1]["status"] == "failed"
    assert newest(tmp_path).manifest.step == 6
    run(recipe(), tmp_path)
    assert outcome(tmp_path) == straight()


def test_a_full_disk_in_a_growth_stops_and_the_old_shape_stands(
    recipe: MakeRecipe, straight: Straight, tmp_path: Path
) -> None:
    with fault("checkpoint.before_manifest:enospc@4"), pytest.raises(DiskError):
        run(recipe(), tmp_path)
    assert newest(tmp_path).manifest.boundary == "before_growth"
    assert checkpoint_names(tmp_path)[-1] == "step-00000007"
    run(recipe(), tmp_path)
    assert outcome(tmp_path) == straight()


def test_training_survives_a_terminal_that_is_gone_or_full(recipe: MakeRecipe, tmp_path: Path) -> None:
    def into_a_full_device() -> None:
        sys.stderr = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
        run(recipe(*ONE_STAGE), tmp_path)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert in_child(into_a_full_device) == 0
    assert len(steps(tmp_path)) == 24


def test_a_read_only_folder_is_refused(recipe: MakeRecipe, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only for root")
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError) as error:
        run(recipe(), tmp_path / "run")
    tmp_path.chmod(0o700)
    assert error.value.exit_code == 76
    assert "writable" in error.value.fix


# --- damage --------------------------------------------------------------------------------------------


def flip(path: Path, at: int = -100) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_a_damaged_newest_checkpoint_is_passed_over_with_the_reason(
    recipe: MakeRecipe, straight: Straight, begun: Path
) -> None:
    flip(begun / "checkpoints" / "step-00000010" / "optimizer.safetensors")
    run(recipe(), begun)
    assert outcome(begun) == straight()
    (message,) = messages(begun)
    assert "step-00000010 is damaged: optimizer.safetensors: its content changed" in message
    assert records(begun, "resume")[-1]["path"] == "step-00000007-grown"
    assert records(begun, "verified")[-1] == records(begun, "verified")[-1] | {
        "replayed": 4,
        "identical": True,
    }


def test_a_damaged_grown_checkpoint_is_grown_again(
    recipe: MakeRecipe, straight: Straight, tmp_path: Path
) -> None:
    killed(recipe(), tmp_path, "train.after_growth:kill")
    flip(tmp_path / "checkpoints" / "step-00000007-grown" / "model.safetensors")
    run(recipe(), tmp_path)
    assert outcome(tmp_path) == straight()


def test_a_run_whose_checkpoints_are_all_damaged_or_gone_does_not_start_over(
    recipe: MakeRecipe, begun: Path
) -> None:
    for manifest in begun.glob("checkpoints/*/manifest.json"):
        flip(manifest)
    damaged = content(begun)
    with pytest.raises(CheckpointError, match="none of them is whole") as error:
        run(recipe(), begun)
    assert error.value.exit_code == 65
    assert content(begun) == damaged
    shutil.rmtree(begun / "checkpoints")
    with pytest.raises(CheckpointError, match="saved at step 10, and its checkpoints are gone"):
        run(recipe(), begun)
    assert not (begun / "checkpoints").exists()


def test_a_damaged_recipe_of_the_run_is_named(recipe: MakeRecipe, begun: Path) -> None:
    (begun / "recipe.json").write_text("{")
    with pytest.raises(CheckpointError, match="recipe") as error:
        run(recipe(), begun)
    assert "recipe.json" in error.value.where


def test_another_recipe_is_noticed_when_the_stored_one_is_gone(recipe: MakeRecipe, begun: Path) -> None:
    (begun / "recipe.json").unlink()
    assert "only its hash" in refused(recipe, "optim.lr=5e-4", begun).why
    run(recipe(), begun)


def test_time_that_was_spent_on_lost_steps_is_not_forgotten(recipe: MakeRecipe, begun: Path) -> None:
    spent = max(r["train_seconds"] for r in records(begun, "step"))
    run(recipe(), begun)
    resumed = [r for r in records(begun, "step") if r["incarnation"] == 2]
    assert resumed[0]["step"] <= 11
    assert resumed[0]["train_seconds"] > spent


def test_damaged_data_in_mid_stage_saves_what_was_done(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(mixture: Mixture, span: int, step: int) -> object:
        if step == 7:
            raise DataError("block 3 of a shard changed")
        return batch(mixture, span, step)

    batch = Mixture.batch
    monkeypatch.setattr(Mixture, "batch", damaged)
    with pytest.raises(DataError):
        run(recipe(*ONE_STAGE, "checkpoint.every_steps=100"), tmp_path)
    assert newest(tmp_path).manifest.step == 7


def test_retention_keeps_both_sides_of_every_growth(recipe: MakeRecipe, tmp_path: Path) -> None:
    run(recipe(), tmp_path)
    sides = [f"step-{step:08d}{side}" for step in (7, 15, 21) for side in ("", "-grown")]
    assert checkpoint_names(tmp_path) == [*sides, "step-00000027", "step-00000029"]


# --- asked to stop -------------------------------------------------------------------------------------


def stop_at(patch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal while it computes a step (1-based)."""
    honest = loop.forward_backward

    def forward_backward(session: Session, state: TrainState) -> tuple[float, torch.Tensor]:
        if state.progress.step + 1 == step:
            os.kill(os.getpid(), number)
        return honest(session, state)

    patch.setattr(loop, "forward_backward", forward_backward)


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


# --- the record ----------------------------------------------------------------------------------------


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
