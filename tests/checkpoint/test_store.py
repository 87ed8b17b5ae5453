import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.checkpoint.disk import hash_file
from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import CheckpointStore
from growlm.errors import CheckpointError, DiskError

from .helpers import FIELDS, assert_holds, in_child, save, tensors

FILES = [MANIFEST, "model.safetensors", "notes.json", "optimizer.safetensors"]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "run" / "checkpoints", keep=2)


def names(store: CheckpointStore) -> list[str]:
    return [entry.path.name for entry in store.checkpoints()]


def fresh(store: CheckpointStore) -> CheckpointStore:
    """As another process sees it, which has written and verified nothing."""
    return CheckpointStore(store.folder, keep=2)


def flip(path: Path, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)


def test_a_checkpoint_comes_back_bit_for_bit(store: CheckpointStore) -> None:
    assert store.latest_valid(print) is None
    path = save(store, 120)
    assert path == store.folder / "step-00000120"
    assert sorted(child.name for child in path.iterdir()) == FILES
    assert store.verify(path) == []
    checkpoint = store.latest_valid(pytest.fail)
    assert checkpoint is not None
    assert checkpoint.manifest.model_dump(include=set(FIELDS)) == FIELDS
    assert_holds(store.folder, 120)
    with checkpoint.open() as stored:
        assert stored.read("exp_avg/embedding", 3, 5).equal(tensors(120)["embedding"][3:5])


def test_everything_is_on_the_disk_before_it_gets_its_name(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1)
    events = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(fd: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{fd}').readlink().name}")
        fsync(fd)

    def recorded_rename(source: Path, target: Path) -> None:
        events.append(f"rename {source.name} {target.name}")
        rename(source, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to name what is synced")
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    save(store, 2)
    temporary = f".tmp-2-{os.getpid()}"
    assert sorted(events[:3]) == [f"fsync {name}" for name in FILES[1:]]
    assert events[3:] == [
        f"fsync {MANIFEST}",
        f"fsync {temporary}",
        f"rename {temporary} step-00000002",
        "fsync checkpoints",
    ]


def test_another_reader_finds_every_tensor_with_the_manifest_alone(store: CheckpointStore) -> None:
    path = save(store, 1)
    manifest = json.loads((path / MANIFEST).read_text())
    for name, tensor in manifest["tensors"].items():
        (place,) = tensor["pieces"]
        raw = (path / place["file"]).read_bytes()[place["offset"] :][: place["bytes"]]
        assert raw == tensors(1)[name.removeprefix("exp_avg/")].numpy().tobytes()


def test_the_newest_comes_first_and_grown_is_newer(store: CheckpointStore) -> None:
    for step, boundary in ((9, None), (10, "before_growth"), (10, "after_growth"), (123456789, None)):
        save(store, step, boundary=boundary)
    assert names(store) == ["step-123456789", "step-00000010-grown", "step-00000010", "step-00000009"]


def test_200_flipped_bits_are_all_found_named_and_survived(store: CheckpointStore) -> None:
    save(store, 1)
    path = save(store, 2)
    random_ = random.Random(0)
    sizes = {name: 8 * (path / name).stat().st_size for name in FILES}
    for trial in range(200):
        name = FILES[trial % 4]
        bit = random_.randrange(sizes[name])
        flip(path / name, bit)
        lines: list[str] = []
        checkpoint = fresh(store).latest_valid(lines.append)
        assert checkpoint is not None
        assert checkpoint.manifest.step == 1
        assert len(lines) == 1
        assert "\n" not in lines[0]
        assert lines[0].startswith(f"step-00000002 is damaged: {name}: ")
        flip(path / name, bit)
    assert store.verify(path) == []


def swap(path: Path) -> None:
    for a, b in (
        ("model.safetensors", "x"),
        ("optimizer.safetensors", "model.safetensors"),
        ("x", "optimizer.safetensors"),
    ):
        (path / a).rename(path / b)


DAMAGE = {
    "truncated": (lambda p: os.truncate(p / "model.safetensors", 100), "model.safetensors: 100 bytes long"),
    "emptied": (lambda p: os.truncate(p / "notes.json", 0), "notes.json: 0 bytes long"),
    "missing": (lambda p: (p / "notes.json").unlink(), "notes.json: missing"),
    "extra": (lambda p: (p / "evil.pt").write_text(""), "evil.pt: not part of the checkpoint"),
    "swapped": (swap, "model.safetensors: "),
    "no manifest": (lambda p: (p / MANIFEST).unlink(), "manifest.json: missing"),
    "other manifest": (
        lambda p: shutil.copy(p.parent / "step-00000001" / MANIFEST, p),
        "manifest.json: it belongs to step-00000001",
    ),
    "replaced by a folder": (
        lambda p: ((p / "notes.json").unlink(), (p / "notes.json").mkdir()),
        "notes.json: ",
    ),
    "a file in its place": (lambda p: (shutil.rmtree(p), p.write_text("")), "manifest.json: "),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_the_one_before_is_used(store: CheckpointStore, kind: str) -> None:
    save(store, 1)
    path = save(store, 2)
    damage, problem = DAMAGE[kind]
    damage(path)
    assert any(line.startswith(problem) for line in store.verify(path))
    lines: list[str] = []
    checkpoint = fresh(store).latest_valid(lines.append)
    assert checkpoint is not None
    assert checkpoint.manifest.step == 1
    assert [line.split(":")[0] for line in lines] == ["step-00000002 is damaged"]
    save(store, 2)  # the run goes on and comes to the same step again
    assert_holds(store.folder, 2)


def test_nothing_whole_means_refusal_not_a_fresh_start(store: CheckpointStore) -> None:
    for step in (1, 2):
        flip(save(store, step) / "model.safetensors", 4000)
    with pytest.raises(CheckpointError, match="will not start over silently") as raised:
        fresh(store).latest_valid(lambda _: None)
    assert "step-00000001 is damaged: model.safetensors" in str(raised.value)


@pytest.mark.parametrize("name", ["step-12", "step-00000120 (copy)", "step-last"])
def test_a_folder_that_only_looks_like_a_checkpoint_is_refused_too(store: CheckpointStore, name: str) -> None:
    (store.folder / name).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="will not start over silently"):
        store.latest_valid(print)


def test_load_checks_again(store: CheckpointStore) -> None:
    path = save(store, 1)
    checkpoint = store.latest_valid(print)
    assert checkpoint is not None
    flip(path / "model.safetensors", 8 * checkpoint.manifest.tensors["norm"].pieces[0].offset)
    with pytest.raises(CheckpointError, match="norm is not what was saved"):
        checkpoint.load("model.safetensors")
    swap(path)
    with pytest.raises(CheckpointError, match="does not hold what the manifest says"):
        checkpoint.load("model.safetensors")


def test_a_step_saved_twice_is_replaced(store: CheckpointStore) -> None:
    save(store, 5)
    save(store, 5, boundary="before_growth")
    assert names(store) == ["step-00000005", "step-00000005-old"]
    assert store.prune() == [store.folder / "step-00000005-old"]
    assert Manifest.load(store.folder / "step-00000005" / MANIFEST).boundary == "before_growth"


def test_a_replaced_checkpoint_counts_until_its_replacement_is_there(store: CheckpointStore) -> None:
    path = save(store, 5)
    path.rename(path.with_name("step-00000005-old"))
    assert_holds(store.folder, 5)
    save(store, 5)
    save(store, 5)
    assert names(store) == ["step-00000005", "step-00000005-old"]


def test_prune_keeps_the_newest_and_both_sides_of_every_growth(store: CheckpointStore) -> None:
    for step in (1, 2, 3):
        save(store, step)
    save(store, 3, boundary="before_growth")
    save(store, 3, boundary="after_growth")
    for step in (4, 5, 6):
        save(store, step)
        store.prune()
    assert names(store) == ["step-00000006", "step-00000005", "step-00000003-grown", "step-00000003"]
    assert all(store.verify(entry.path) == [] for entry in store.checkpoints())


def test_prune_does_not_count_what_is_not_all_there(store: CheckpointStore) -> None:
    for step in range(1, 6):
        save(store, step)
    os.truncate(store.folder / "step-00000005" / "model.safetensors", 99)
    (store.folder / "step-00000003" / "notes.json").unlink()
    assert fresh(store).prune() == [store.folder / "step-00000001"]
    for step in (2, 4):
        flip(store.folder / f"step-{step:08d}" / MANIFEST, 999)
    assert CheckpointStore(store.folder, keep=1).prune() == []


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of checkpoints that are hashed from now on."""
    names: list[str] = []

    def recorded(path: Path) -> str:
        names.append(f"{path.parent.name}/{path.name}")
        return hash_file(path)

    monkeypatch.setattr("growlm.checkpoint.store.hash_file", recorded)
    return names


def test_what_this_process_wrote_or_verified_is_not_hashed_again(
    store: CheckpointStore, hashed: list[str]
) -> None:
    for step in (1, 2):
        path = save(store, step)
    assert store.latest_valid(pytest.fail) is not None
    assert hashed == []
    other = fresh(store)
    for _ in range(2):
        assert other.latest_valid(pytest.fail) is not None
        assert sorted(hashed) == [f"step-00000002/{name}" for name in FILES[1:]]
    os.truncate(path / "notes.json", 3)
    lines: list[str] = []
    assert other.latest_valid(lines.append) is not None
    assert lines == [
        "step-00000002 is damaged: notes.json: 3 bytes long, 10 were saved; trying the checkpoint before it"
    ]


def test_prune_hashes_nothing_and_reads_an_old_manifest_once(
    store: CheckpointStore, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(store, step, boundary="before_growth")
    other, read, load = fresh(store), [], Manifest.load
    monkeypatch.setattr(Manifest, "load", lambda path: read.append(path.parent.name) or load(path))
    for step in (4, 5, 6):
        save(other, step)
        assert other.prune() == ([store.folder / "step-00000004"] if step == 6 else [])
    assert hashed == []
    assert read.count("step-00000001") == read.count("step-00000002") == 1


def test_leftovers_are_cleared_whoever_left_them(store: CheckpointStore) -> None:
    """Whoever writes holds the run's lock: also of a living process, or another host's, all is left over."""
    for name in (f".tmp-7-{os.getppid()}", ".trash-step-00000003-99999999", f".tmp-7-{os.getpid()}"):
        (store.folder / name).mkdir(parents=True)
    for name in (".tmp-mine", "notes"):
        (store.folder / name).mkdir()
    assert store.latest_valid(print) is None
    assert len(list(store.folder.iterdir())) == 5, "reading changes nothing"
    store.check_space(1)
    assert {path.name for path in store.folder.iterdir()} == {".tmp-mine", "notes"}
    with store.begin(8) as pending:
        store.prune()
        assert pending.folder.is_dir(), "what is being written is not left over"


def test_leaving_without_a_commit_leaves_nothing(store: CheckpointStore) -> None:
    with store.begin(1) as pending:
        pending.path("notes.json").write_text("{}")
    assert list(store.folder.iterdir()) == []
    with store.begin(2) as pending, pytest.raises(ValueError, match="stage"):
        pending.commit(mask=0.0)
    assert list(store.folder.iterdir()) == []

    def break_off() -> None:
        with store.begin(3) as pending:
            pending.writer("m.safetensors", [("a", torch.float32, (1,))])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert list(store.folder.iterdir()) == []


def test_a_manifest_that_could_not_be_read_again_is_not_written(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (save(store, 1) / MANIFEST).stat().st_size
    monkeypatch.setattr("growlm.checkpoint.manifest.SIZE_CAP", size + 40)
    with pytest.raises(CheckpointError, match="too long to be read again") as raised:
        save(store, 1, recipe_hash="r" * 50)
    assert "8 pieces" in str(raised.value)
    assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]
    assert_holds(store.folder, 1)


def test_one_tensor_in_two_files_is_refused(store: CheckpointStore) -> None:
    with store.begin(1) as pending:
        for file in ("x.safetensors", "y.safetensors"):
            pending.writer(file, [("a", torch.float32, (1,))]).write(torch.ones(1))
        with pytest.raises(ValueError, match="two of its pieces overlap"):
            pending.commit(**FIELDS)


def test_space_is_checked_with_both_numbers(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("growlm.checkpoint.store.free_bytes", lambda _: 1150 << 20)
    store.check_space(950 << 20)
    with pytest.raises(DiskError) as raised:
        store.check_space(1000 << 20)
    assert "1.2 GiB needed" in str(raised.value)
    assert "1.1 GiB free" in str(raised.value)
    assert raised.value.exit_code == 76


@pytest.fixture
def small_disk(tmp_path: Path):
    """A tmpfs of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_loses_nothing(small_disk: Path) -> None:
    store = CheckpointStore(small_disk / "checkpoints", keep=2)
    save(store, 1)
    with store.begin(2) as pending:
        writer = pending.writer("model.safetensors", [("a", torch.float32, (1 << 20,))])
        with pytest.raises(DiskError) as raised:
            writer.write(torch.ones(1 << 20))
    assert "4.0 MiB needed" in str(raised.value)
    with pytest.raises(DiskError, match="Not enough space"):
        store.check_space(1 << 20)
    assert names(store) == ["step-00000001"]
    assert len(list(store.folder.iterdir())) == 1
    assert_holds(store.folder, 1)
    save(store, 2)
    assert_holds(store.folder, 2)


def test_a_read_only_disk_is_clear_and_still_readable(small_disk: Path) -> None:
    store = CheckpointStore(small_disk, keep=2)
    save(store, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        with pytest.raises(DiskError, match="read-only"):
            store.begin(2)
        assert_holds(small_disk, 1)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_pickle_is_never_used(store: CheckpointStore) -> None:
    package = Path(__file__).resolve().parents[2] / "growlm"
    for source in [*(package / "checkpoint").glob("*.py"), package / "cli" / "ckpt.py"]:
        assert not re.search(
            r"pickle|torch\.(load|save)|marshal|shelve|\beval\(|\bexec\(", source.read_text()
        )

    def save_and_load_without_pickle() -> None:
        for module in ("pickle", "_pickle"):
            sys.modules.setdefault(module, __import__(module))
            for name in ("load", "loads", "dump", "dumps", "Pickler", "Unpickler"):
                setattr(sys.modules[module], name, None)
        save(store, 1)
        assert_holds(store.folder, 1)

    assert in_child(save_and_load_without_pickle) == 0


def test_the_reader_in_the_documentation_works(store: CheckpointStore) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md").read_text()
    scope: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], scope)
    path = save(store, 3)
    loaded = scope["load"](path)
    for name, tensor in tensors(3).items():
        assert torch.from_numpy(loaded[name].copy()).equal(tensor)
    flip(path / "model.safetensors", 8 * (path / "model.safetensors").stat().st_size - 1)
    with pytest.raises(AssertionError, match="damaged"):
        scope["load"](path)
