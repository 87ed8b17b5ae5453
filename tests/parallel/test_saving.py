"""Checkpoints that several ranks write: the whole of one process, every element once, or nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.plan.layout import Layout
from growlm.testing.ranks import Ranks, fork_ranks
from tests.parallel import saving_jobs as jobs

LAYOUTS: list[dict[str, Any]] = [
    {"dp": 4, "zero": 0},
    {"dp": 4, "zero": 1},
    {"dp": 4, "zero": 3},
    {"dp": 2, "tp": 2},
    {"tp": 2, "pp": 2},
    {"dp": 2, "pp": 2, "zero": 1},
    {"dp": 4, "replicas": 2},
    {"pp": 3},
    {},
]


def size_of(layout: dict[str, Any]) -> int:
    return Layout(**layout).world


def newest(folder: Path) -> Checkpoint:
    found = CheckpointStore(folder, keep=9).latest_valid(pytest.fail)
    assert found is not None
    return found


def assert_whole(checkpoint: Checkpoint) -> None:
    """It holds what one process would have written at its step, and every element once."""
    for file, tensors in jobs.whole(checkpoint.manifest.step).items():
        loaded = checkpoint.load(file)
        assert loaded.keys() == tensors.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
        stored = [p.bytes for name in tensors for p in checkpoint.manifest.tensors[name].pieces]
        assert sum(stored) == sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_saves_the_whole_of_the_state_at_begin(
    ranks: Ranks, layout: dict[str, Any], tmp_path: Path
) -> None:
    told = ranks.run(jobs.save, str(tmp_path), layout, [1, 2, 3], size=size_of(layout))
    assert told == [told[0]] * len(told), "all ranks know the same"
    assert [name for name, _ in told[0]] == ["step-00000001", "step-00000002", "step-00000003"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name for name, _ in told[0]]
    for name, size in told[0]:
        assert size == sum(file.stat().st_size for file in (tmp_path / name).iterdir())
        assert CheckpointStore.verify(tmp_path / name) == []
    checkpoint = newest(tmp_path)
    assert_whole(checkpoint)
    files = [checkpoint.shards(file) for file in jobs.KINDS]
    if len(told) == 1:
        assert files == [[file] for file in jobs.KINDS]
    else:
        writers = len(files[0])
        assert files[0] == [f"model-{i:05d}-of-{writers:05d}.safetensors" for i in range(1, writers + 1)]


@pytest.mark.parametrize(
    ("full", "point"),
    [
        (1, "checkpoint.write"),
        (0, "checkpoint.write"),
        (0, "checkpoint.after_mkdir"),
        (0, "checkpoint.before_rename"),
    ],
)
def test_a_full_disk_of_one_rank_is_an_error_of_all_and_the_next_save_succeeds(
    ranks: Ranks, full: int, point: str, tmp_path: Path
) -> None:
    told = ranks.run(jobs.save_with_a_full_disk, str(tmp_path), {"dp": 2, "tp": 2}, full, point)
    for rank, (error, left, path) in enumerate(told):
        assert error["kind"] == ("DiskError" if rank == 0 else "Elsewhere")
        assert error["code"] == 76
        assert left == ["step-00000001"]
        assert path == "step-00000003"
    assert told[0][0]["where"].startswith("rank 1, ") is (full == 1)
    assert_whole(newest(tmp_path))


@pytest.mark.parametrize(
    ("killed", "fault", "left"),
    [
        (1, "checkpoint.write:kill@2", 1),
        (0, "checkpoint.write:kill", 1),
        (0, "checkpoint.before_rename:kill", 1),
        (0, "checkpoint.after_rename:kill", 2),
    ],
)
def test_a_killed_rank_leaves_the_old_checkpoint_or_the_new(
    killed: int, fault: str, left: int, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    folder, layout = tmp_path / "checkpoints", Layout(dp=2)
    codes = fork_ranks(
        2, lambda: jobs.save_twice(folder, layout), faults={killed: fault}, logs=logs, timeout=10
    )
    assert codes[killed] == -9
    assert newest(folder).manifest.step == left
    assert_whole(newest(folder))


def test_ranks_that_do_not_share_a_folder_are_told_so(ranks: Ranks, tmp_path: Path) -> None:
    errors = ranks.run(jobs.save_apart, [str(tmp_path / "a"), str(tmp_path / "b")], size=2)
    assert [error["kind"] for error in errors] == ["CheckpointError", "Elsewhere"]
    assert "put it on a shared file system" in errors[0]["text"]
    assert "rank 1, " in errors[0]["text"]
    assert list((tmp_path / "a").iterdir()) == []
