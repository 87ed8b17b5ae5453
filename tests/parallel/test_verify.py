"""A checkpoint verified by several ranks: every file hashed once, and what one finds is known to all."""

from pathlib import Path

import pytest

from growlm.checkpoint.store import CheckpointStore
from growlm.errors import CheckpointError
from growlm.testing.ranks import Ranks
from growlm.train.initial import hash_folder
from tests.checkpoint.helpers import save
from tests.parallel import verify_jobs as jobs

FILES = ["model.safetensors", "notes.json", "optimizer.safetensors"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoints of steps 1 and 2."""
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    save(store, 1)
    save(store, 2)
    return store.folder


def spoil(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_file_is_hashed_by_one_rank(ranks: Ranks, folder: Path, size: int) -> None:
    told = ranks.run(jobs.newest, str(folder), size=size)
    assert [(t["found"], t["trusts"], t["lines"]) for t in told] == [("step-00000002", True, [])] * size
    for rank, one in enumerate(told):
        assert one["hashed"] == [f"step-00000002/{name}" for name in FILES[rank::size]]


def test_damage_that_one_rank_finds_is_known_to_all(ranks: Ranks, folder: Path) -> None:
    spoil(folder / "step-00000002" / "notes.json")
    main, other = ranks.run(jobs.newest, str(folder), size=2)
    assert "step-00000002/notes.json" in other["hashed"]
    assert "step-00000002/notes.json" not in main["hashed"]
    assert main["found"] == other["found"] == "step-00000001"
    alone: list[str] = []
    CheckpointStore(folder, keep=2).latest_valid(alone.append)
    assert main["lines"] == alone != []
    assert other["lines"] == []


def test_nothing_whole_is_an_error_of_all(ranks: Ranks, folder: Path) -> None:
    spoil(folder / "step-00000002" / "manifest.json")
    spoil(folder / "step-00000001" / "optimizer.safetensors")
    main, *others = ranks.run(jobs.newest, str(folder), size=3)
    with pytest.raises(CheckpointError) as raised:
        CheckpointStore(folder, keep=2).latest_valid(lambda _: None)
    assert (main["kind"], main["text"]) == ("CheckpointError", str(raised.value))
    assert [t["kind"] for t in others] == ["Elsewhere"] * 2


def test_nothing_saved_is_nothing_found(ranks: Ranks, tmp_path: Path) -> None:
    assert [t["found"] for t in ranks.run(jobs.newest, str(tmp_path / "new"), size=2)] == [None, None]


def test_what_rank_0_has_verified_is_not_hashed_again(ranks: Ranks, folder: Path) -> None:
    told = ranks.run(jobs.newest, str(folder), "step-00000002", size=2)
    assert [(t["found"], t["hashed"]) for t in told] == [("step-00000002", [])] * 2


def test_what_a_run_starts_from_is_the_same_by_any_number_of_ranks(ranks: Ranks, folder: Path) -> None:
    foreign = folder.parent / "foreign"
    foreign.mkdir()
    for name in ("config.json", "a.safetensors", "b.safetensors"):
        (foreign / name).write_text(name)
    told = [ranks.run(jobs.identity, str(foreign), size=size) for size in (1, 2, 4)]
    assert [one for size in told for one in size] == [[hash_folder(foreign), "step-00000002"]] * 7


@pytest.mark.parametrize("damaged", [False, True])
def test_ranks_that_cannot_start_from_the_weights_end_together(
    ranks: Ranks, folder: Path, damaged: bool
) -> None:
    inits = [str(folder / "step-00000002"), str(folder / f"step-0000000{2 if damaged else 1}")]
    spoil(folder / "step-00000002" / "notes.json")
    main, other = ranks.run(jobs.start_from, inits, size=2)
    assert (main["kind"], other["kind"]) == ("CheckpointError" if damaged else "RecipeError", "Elsewhere")
    assert ("notes.json: its content changed" if damaged else "rank 1 has init") in main["text"]
