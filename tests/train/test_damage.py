"""Full disks, folders that cannot be written, damaged checkpoints and damaged text."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from growlm.data.mixture import Mixture
from growlm.errors import CheckpointError, DataError, DiskError
from growlm.train.supervisor import run
from tests.checkpoint.helpers import in_child
from tests.train.conftest import MakeRecipe, Straight
from tests.train.helpers import (
    ONE_STAGE,
    checkpoint_names,
    content,
    fault,
    killed,
    messages,
    newest,
    outcome,
    records,
    steps,
)

# --- disks ----------------------------------------------------------------------------------------------


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


# --- damage ---------------------------------------------------------------------------------------------


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
        "replayed": 6,
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


def test_time_that_was_spent_on_lost_steps_is_not_forgotten(recipe: MakeRecipe, begun: Path) -> None:
    spent = max(r["train_seconds"] for r in records(begun, "step"))
    run(recipe(), begun)
    resumed = [r for r in records(begun, "step") if r["incarnation"] == 2]
    assert resumed[0]["step"] <= 11
    assert resumed[0]["train_seconds"] > spent


def test_damaged_data_in_mid_stage_saves_what_was_done(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(mixture: Mixture, span: int, step: int, rows: Any = None) -> object:
        if step == 7:
            raise DataError("block 3 of a shard changed")
        return batch(mixture, span, step, rows)

    batch = Mixture.batch
    monkeypatch.setattr(Mixture, "batch", damaged)
    with pytest.raises(DataError):
        run(recipe(*ONE_STAGE, "checkpoint.every_steps=100"), tmp_path)
    assert newest(tmp_path).manifest.step == 7


def test_retention_keeps_both_sides_of_every_growth(recipe: MakeRecipe, tmp_path: Path) -> None:
    run(recipe(), tmp_path)
    sides = [f"step-{step:08d}{side}" for step in (7, 15, 21) for side in ("", "-grown")]
    assert checkpoint_names(tmp_path) == [*sides, "step-00000027", "step-00000029"]
