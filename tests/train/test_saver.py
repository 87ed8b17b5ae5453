"""Saves in the background: what was there at `begin`, in the bytes of a plain save, whole or not at all."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import CheckpointStore
from growlm.errors import DiskError
from growlm.plan.pieces import Piece
from growlm.train.saver import Saver, Shard
from tests.checkpoint.helpers import FIELDS, in_child, tensors
from tests.train.helpers import ALONE, fault

FILES = {"model.safetensors": "", "optimizer.safetensors": "exp_avg/"}
FAULTS = ("after_mkdir", "write@1", "write@5", "after_file@2", "before_manifest", "after_manifest")


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


@pytest.fixture
def saver(store: CheckpointStore) -> Iterator[Saver]:
    with Saver(store, ALONE) as saver:
        yield saver


def shards(state: dict[str, Tensor]) -> dict[str, dict[str, Shard]]:
    """The same state as weights and as moments."""
    return {
        file: {prefix + n: Shard(Piece.whole(t.shape), tuple(t.shape), t) for n, t in state.items()}
        for file, prefix in FILES.items()
    }


def begin(saver: Saver, step: int, **fields: Any) -> Any:
    return saver.begin(step, shards(tensors(step)), FIELDS | fields)


def save(saver: Saver, step: int) -> None:
    begin(saver, step)
    saver.finish()


def wait_for(saver: Saver) -> None:
    deadline = time.monotonic() + 10
    while not saver.is_written():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def assert_newest(store: CheckpointStore, step: int) -> None:
    """By a store of its own: the newest whole checkpoint is that of `step`, and no half one lies about."""
    fresh = CheckpointStore(store.folder, keep=2)
    checkpoint = fresh.latest_valid(pytest.fail)
    assert checkpoint is not None
    assert checkpoint.manifest.step == step
    for file, prefix in FILES.items():
        loaded = checkpoint.load(file)
        assert all(torch.equal(loaded[prefix + n], t) for n, t in tensors(step).items())


def test_a_save_is_byte_for_byte_what_one_writer_would_write(store: CheckpointStore, saver: Saver) -> None:
    plain = CheckpointStore(store.folder.with_name("plain"), keep=2)
    with plain.begin(3) as pending:
        for file, prefix in FILES.items():
            state = tensors(3)
            writer = pending.writer(file, [(prefix + n, t.dtype, tuple(t.shape)) for n, t in state.items()])
            for tensor in state.values():
                writer.write(tensor)
        expected = pending.commit(**FIELDS)
    begin(saver, 3)
    saved = saver.finish()
    for file in FILES:
        assert (saved.path / file).read_bytes() == (expected / file).read_bytes()
    manifests = [Manifest.load(path / MANIFEST).model_dump() for path in (saved.path, expected)]
    assert manifests[0] | {"created": 0} == manifests[1] | {"created": 0}
    assert saved.bytes == sum(file.stat().st_size for file in saved.path.iterdir())
    assert saved.blocked_seconds > 0
    assert saved.seconds > 0


def test_what_is_saved_is_the_state_at_begin(store: CheckpointStore, saver: Saver) -> None:
    for step in (1, 2):  # the second into the buffers of the first
        state, guard = tensors(step), {"history": [1.0]}
        begun = saver.begin(step, shards(state), FIELDS | {"guard": guard})
        assert begun is None
        for tensor in state.values():
            tensor.zero_()
        guard["history"].append(2.0)
        saver.finish()
        assert_newest(store, step)
        found = store.latest_valid(pytest.fail)
        assert found is not None
        assert found.manifest.guard == {"history": [1.0]}


def test_training_need_not_wait_for_the_disk(store: CheckpointStore, saver: Saver) -> None:
    assert saver.is_written()
    begin(saver, 1)
    assert saver.pending
    wait_for(saver)
    assert store.checkpoints() == [], "before it is committed it is no checkpoint"
    assert saver.advance() is None
    wait_for(saver)
    assert saver.pending
    saved = saver.advance()
    assert saved is not None
    assert not saver.pending
    assert_newest(store, 1)
    with pytest.raises(ValueError, match="no save was begun"):
        saver.finish()


def test_a_second_save_waits_for_the_first(store: CheckpointStore, saver: Saver) -> None:
    finished = [begin(saver, step) for step in (1, 2, 3, 4)]
    assert finished[0] is None
    assert [saved.path.name for saved in finished[1:]] == [f"step-{step:08d}" for step in (1, 2, 3)]
    assert_newest(store, 3)
    saver.finish()
    assert_newest(store, 4)
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("point", [*FAULTS, "before_rename"])
def test_a_full_disk_costs_one_save(store: CheckpointStore, saver: Saver, point: str) -> None:
    save(saver, 1)
    name, _, nth = point.partition("@")
    with fault(f"checkpoint.{name}:enospc@{nth or 1}"), pytest.raises(DiskError, match="disk operation"):
        save(saver, 2)
    assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]
    assert not saver.pending
    save(saver, 3)
    assert_newest(store, 3)


def test_a_save_that_cannot_fit_is_not_begun(
    store: CheckpointStore, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("growlm.checkpoint.store.free_bytes", lambda _: 1000)
    with pytest.raises(DiskError, match="Not enough space"):
        begin(saver, 1)
    assert not saver.pending
    assert list(store.folder.iterdir()) == []


def test_the_failure_of_a_save_is_told_by_the_next(store: CheckpointStore, saver: Saver) -> None:
    with fault("checkpoint.write:enospc"):
        begin(saver, 1)
        with pytest.raises(DiskError):
            begin(saver, 2)
    assert not saver.pending
    save(saver, 2)
    assert_newest(store, 2)


@pytest.mark.parametrize("point", [*FAULTS, "before_rename", "after_rename"])
def test_a_kill_leaves_the_old_checkpoint_or_the_new(store: CheckpointStore, point: str) -> None:
    def two_saves(folder: Path = store.folder) -> None:
        with Saver(CheckpointStore(folder, keep=2), ALONE) as saver:
            save(saver, 2)

    with Saver(store, ALONE) as saver:
        save(saver, 1)
    name, _, nth = point.partition("@")
    assert in_child(two_saves, f"checkpoint.{name}:kill@{nth or 1}") == -9
    assert_newest(store, 2 if point == "after_rename" else 1)
    with Saver(CheckpointStore(store.folder, keep=2), ALONE) as saver:
        save(saver, 3)
    assert_newest(store, 3)
    assert not list(store.folder.glob(".*")), "what the dead process left is cleared"


def test_on_the_way_out_a_save_is_given_up(store: CheckpointStore) -> None:
    large = torch.zeros(16 << 20)
    with Saver(store, ALONE) as saver:
        saver.begin(1, {"model.safetensors": {"w": Shard(Piece.whole(large.shape), (16 << 20,), large)}}, {})
        assert len(list(store.folder.iterdir())) == 1
    assert not saver.pending
    assert list(store.folder.iterdir()) == []
