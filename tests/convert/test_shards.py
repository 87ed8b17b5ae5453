"""A folder is written shard by shard: it appears whole, and a kill costs one shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from growlm.checkpoint.format import TensorReader, TensorWriter
from growlm.convert import shards
from growlm.convert.shards import Entry, Shard, partial_folder, plan_shards
from growlm.errors import DiskError, GrowthError, LockError, RecipeError
from tests.checkpoint.helpers import in_child

ENTRIES: list[Entry] = [(f"t{i}", torch.float32, (10, 10)) for i in range(5)]
PLAN = {"what": "a test"}
written: list[str] = []


Fill = Callable[[TensorWriter], None]


def fill(shard: Shard) -> Fill:
    def write(writer: TensorWriter) -> None:
        written.append(shard.file)
        for name, dtype, shape in shard.entries:
            writer.write(torch.full(shape, float(name[1:]), dtype=dtype))

    return write


def make(
    out: Path,
    plan: dict[str, str] = PLAN,
    shard_bytes: int = 400,
    filled: Callable[[Shard], Fill] = fill,
) -> list[str]:
    """Write the folder; the shards that had to be written."""
    written.clear()
    parts = plan_shards(ENTRIES, shard_bytes)
    with partial_folder(out, plan, parts) as partial:
        for shard in parts:
            partial.write(shard, filled(shard))
        partial.add("config.json", b"{}")
        partial.publish(out)
    return list(written)


def assert_whole(out: Path, count: int = 5) -> None:
    assert not out.with_name(out.name + ".partial").exists()
    files = sorted(out.glob("*.safetensors"))
    assert len(files) == count
    assert {path.name for path in out.iterdir()} == {"config.json", *(file.name for file in files)}
    for file in files:
        with TensorReader(file) as reader:
            for name in reader.names:
                assert (reader.read(name) == float(name[1:])).all()


def test_tensors_are_dealt_in_order_and_a_larger_one_has_a_file_of_its_own() -> None:
    assert [s.file for s in plan_shards(ENTRIES, 10**9)] == ["model.safetensors"]
    parts = plan_shards([*ENTRIES[:3], ("big", torch.float32, (30, 10)), *ENTRIES[3:]], 900)
    assert [[name for name, _, _ in s.entries] for s in parts] == [
        ["t0", "t1"],
        ["t2"],
        ["big"],
        ["t3", "t4"],
    ]
    assert [s.file for s in parts] == [f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    assert [s.bytes for s in parts] == [800, 400, 1200, 800]


def test_wider_dtypes_come_first_so_that_all_are_aligned() -> None:
    mixed = [("a", torch.bfloat16, (3,)), ("b", torch.float32, (3,)), ("c", torch.bfloat16, (3,))]
    (shard,) = plan_shards(mixed, 10**9)
    assert [name for name, _, _ in shard.entries] == ["b", "a", "c"]


@pytest.mark.parametrize("shard_bytes", [400, 900, 10**9])
def test_a_folder_appears_whole(shard_bytes: int, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty folder is no obstacle
    assert make(tmp_path / "out", shard_bytes=shard_bytes)
    assert_whole(tmp_path / "out", {400: 5, 900: 3, 10**9: 1}[shard_bytes])


POINTS = ("checkpoint.write", "shards.after_file", "shards.after_journal")
DEATHS = [f"{point}:kill@{n}" for point in POINTS for n in (1, 3, 5)]


@pytest.mark.parametrize("death", [*DEATHS, "shards.before_rename:kill"])
def test_a_kill_costs_one_shard_at_most(death: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert in_child(lambda: make(out), death) == -9
    assert not out.exists()
    again = make(out)
    assert_whole(out)
    whole = int(death[-1]) - (0 if "after_journal" in death else 1) if "@" in death else 5
    assert len(again) == 5 - whole


def test_a_kill_after_the_rename_costs_nothing(tmp_path: Path) -> None:
    assert in_child(lambda: make(tmp_path / "out"), "shards.after_rename:kill") == -9
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_what_was_changed_since_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    in_child(lambda: make(out), "shards.after_journal:kill@3")
    partial = out.with_name("out.partial")
    first, second = (partial / "files" / f"model-0000{i}-of-00005.safetensors" for i in (1, 2))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    second.unlink()
    assert make(out) == [f"model-0000{i}-of-00005.safetensors" for i in (1, 2, 4, 5)]
    assert_whole(out)


def test_a_line_of_the_journal_that_was_cut_is_not_believed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    in_child(lambda: make(out), "shards.after_journal:kill@2")
    journal = out.with_name("out.partial") / "journal.jsonl"
    journal.write_text(journal.read_text()[:-10])
    assert len(make(out)) == 4
    assert_whole(out)


def test_another_plan_does_not_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    in_child(lambda: make(out), "shards.after_journal:kill@2")
    for other in ({"plan": {"what": "another"}}, {"shard_bytes": 800}):
        with pytest.raises(RecipeError, match="unfinished folder of another command"):
            make(out, **other)  # type: ignore[arg-type]
    assert len(make(out)) == 3


def test_a_folder_that_only_looks_unfinished_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="in the way"):
        make(tmp_path / "out")
    assert (tmp_path / "out.partial" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("used", ["file", "folder"])
def test_nothing_that_exists_is_written_into(used: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if used == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises(RecipeError, match="not an empty folder"):
        make(out)


def test_a_full_disk_is_seen_first_and_stops_nothing_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shards, "free_bytes", lambda _: 1000)
        with pytest.raises(DiskError, match="Not enough space"):
            make(out)
    assert not list(tmp_path.iterdir())
    assert in_child(lambda: make(out), "checkpoint.write:enospc@3") == DiskError.exit_code
    assert len(make(out)) == 3


def test_any_other_error_leaves_nothing(tmp_path: Path) -> None:
    def fail(shard: Shard) -> Fill:
        if shard.file.startswith("model-00003"):
            raise GrowthError("not exact")
        return fill(shard)

    with pytest.raises(GrowthError):
        make(tmp_path / "out", filled=fail)
    assert not list(tmp_path.iterdir())


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    parts = plan_shards(ENTRIES, 400)
    with partial_folder(tmp_path / "out", PLAN, parts):
        assert in_child(lambda: make(tmp_path / "out")) == LockError.exit_code
