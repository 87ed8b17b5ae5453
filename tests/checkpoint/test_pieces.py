"""Tensors in pieces: any tiling reads back as the whole, by the bytes it needs, and is checked like it."""

import json
import math
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from torch import Tensor

from growlm.checkpoint import tensors as tensors_module
from growlm.checkpoint.format import FileInfo, TensorWriter
from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.checkpoint.tiling import tiling_problem
from growlm.errors import CheckpointError

from .helpers import FIELDS, assert_holds, save

Corner = tuple[int, ...]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.uint8, torch.bool]  # wider ones first
SHAPES = [(), (1,), (7,), (40,), (1, 9), (13, 1), (16, 8), (33, 21), (6, 5, 4), (0, 4), (3, 0)]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "run" / "checkpoints", keep=2)


def ranges(size: int, parts: int, rng: random.Random) -> list[tuple[int, int]]:
    """`size` cut into `parts` ranges; some may be empty."""
    cuts = sorted(rng.choices(range(size + 1), k=parts - 1))
    return list(zip([0, *cuts], [*cuts, size], strict=True))


def tiling(shape: Corner, rng: random.Random) -> list[tuple[slice, ...]]:
    """Bands of rows, each cut into columns of its own."""
    if not shape:
        return [()]
    bands = ranges(shape[0], rng.randint(1, 4), rng)
    if len(shape) == 1:
        return [(slice(*band),) for band in bands]
    return [
        (slice(*rows), slice(*columns))
        for rows in bands
        for columns in ranges(shape[1], rng.randint(1, 4), rng)
    ]


def start_of(place: Sequence[slice], dims: int) -> Corner:
    return (*(part.start for part in place), *([0] * (dims - len(place))))


def some_tensors(rng: random.Random) -> dict[str, Tensor]:
    """One of every shape, of wider dtypes first."""
    chosen = sorted((DTYPES.index(rng.choice(DTYPES)), shape) for shape in SHAPES)
    generator = torch.Generator().manual_seed(rng.randrange(1000))
    return {
        f"t{i}": torch.randint(0, 2, shape, generator=generator).to(DTYPES[dtype])
        if DTYPES[dtype] is torch.bool
        else torch.randint(0, 99, shape, generator=generator).to(DTYPES[dtype])
        for i, (dtype, shape) in enumerate(chosen)
    }


def write_sharded(
    store: CheckpointStore, whole: dict[str, Tensor], rng: random.Random, step: int = 1
) -> Checkpoint:
    """A checkpoint of many files: the first written by its owner, the others as other processes would."""
    tilings = {name: tiling(tuple(tensor.shape), rng) for name, tensor in whole.items()}
    for places in tilings.values():
        rng.shuffle(places)
    files = max(map(len, tilings.values()))
    with store.begin(step) as pending:
        for index in range(files):
            file = f"model-{index + 1:05d}-of-{files:05d}.safetensors"
            held = {n: places[index] for n, places in tilings.items() if index < len(places)}
            parts = {name: whole[name][place] for name, place in held.items()}
            entries = [(name, part.dtype, tuple(part.shape)) for name, part in parts.items()]
            pieces = {
                name: (start_of(place, whole[name].dim()), tuple(whole[name].shape))
                for name, place in held.items()
            }
            writer = (
                TensorWriter(pending.folder / file, entries)
                if index
                else pending.writer(file, entries, pieces)
            )
            for part in parts.values():
                writer.write(part)
            if index:
                pending.add(file, writer.close(), pieces)
        with pending.open() as written:
            assert all(written.read(name).equal(tensor) for name, tensor in whole.items())
        path = pending.commit(**FIELDS)
    assert store.verify(path) == []
    return Checkpoint(path, Manifest.load(path / MANIFEST))


def random_range(size: int, rng: random.Random) -> tuple[int, int]:
    first, end = sorted(rng.choices(range(size + 1), k=2))
    return first, end


@pytest.mark.parametrize("seed", range(25))
def test_any_rectangle_of_any_tiling_reads_back_by_the_bytes_it_needs(
    store: CheckpointStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    whole = some_tensors(rng)
    checkpoint = write_sharded(store, whole, rng)
    count, preadv = [0], os.preadv

    def counted(fd: int, buffers: Any, offset: int) -> int:
        count[0] += preadv(fd, buffers, offset)
        return sum(len(buffer) for buffer in buffers)

    with checkpoint.open() as stored:
        for name, tensor in whole.items():  # opens every file
            assert stored.read(name).equal(tensor)
            assert (stored.dtype(name), stored.shape(name)) == (tensor.dtype, tuple(tensor.shape))
        monkeypatch.setattr(os, "preadv", counted)
        for _ in range(100):
            name, tensor = rng.choice([*whole.items()])
            count[0] = 0
            if not tensor.dim():
                assert stored.read(name).equal(tensor)
                continue
            rows = random_range(tensor.shape[0], rng)
            columns = random_range(tensor.shape[1], rng) if tensor.dim() > 1 and rng.random() < 0.7 else None
            wanted = tensor[slice(*rows)]
            wanted = wanted if columns is None else wanted[:, slice(*columns)]
            found = stored.read(name, *rows, columns)
            assert found.shape == wanted.shape
            assert found.equal(wanted)
            assert count[0] == wanted.nbytes
    loaded = checkpoint.load("model.safetensors")
    assert loaded.keys() == whole.keys()
    assert all(loaded[name].equal(tensor) for name, tensor in whole.items())


def test_the_reader_in_the_documentation_reads_pieces(store: CheckpointStore) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md").read_text()
    scope: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], scope)
    whole = {name: tensor.float() for name, tensor in some_tensors(random.Random(3)).items()}
    checkpoint = write_sharded(store, whole, random.Random(3))
    loaded = scope["load"](checkpoint.path)
    assert loaded.keys() == whole.keys()
    assert all(torch.from_numpy(loaded[name]).equal(tensor) for name, tensor in whole.items())


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count open files")
def test_few_files_are_open_at_a_time(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    whole = some_tensors(rng)
    checkpoint = write_sharded(store, whole, rng)
    monkeypatch.setattr(tensors_module, "OPEN_FILES", 2)
    before = open_files()
    with checkpoint.open() as stored:
        for name, tensor in whole.items():
            assert stored.read(name).equal(tensor)
            assert open_files() <= before + 2
    assert open_files() == before


def test_places_that_are_not_there_are_refused(store: CheckpointStore) -> None:
    checkpoint = write_sharded(store, {"a": torch.ones(4, 3), "b": torch.ones(4)}, random.Random(0))
    with checkpoint.open() as stored:
        for name, rows, columns in (
            ("a", (0, 5), (0, 3)),
            ("a", (3, 2), (0, 3)),
            ("a", (0, 4), (0, 4)),
            ("a", (0, 4), (-1, 2)),
            ("b", (-1, 2), None),
            ("b", (0, 4), (0, 2)),
        ):
            with pytest.raises(IndexError, match="rows and"):
                stored.read(name, *rows, columns)
        with pytest.raises(KeyError):
            stored.read("c")


def covers(shape: Corner, pieces: list[tuple[list[int], list[int]]]) -> bool:
    """Whether every element is in one piece, by counting."""
    counts = torch.zeros(shape, dtype=torch.int64)
    for start, size in pieces:
        part = tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))
        if counts[part].shape != torch.Size(size):
            return False
        counts[part] += 1
    return bool((counts == 1).all())


def test_tilings_are_judged_as_by_counting() -> None:
    rng, right = random.Random(0), 0
    for _ in range(3000):
        shape = (rng.randint(1, 6), rng.randint(1, 6))
        pieces = [
            (
                [part.start for part in place],
                [part.stop - part.start for part in place],
            )
            for place in tiling(shape, rng)
        ]
        pieces = [(start, size) for start, size in pieces if math.prod(size)]
        for _ in range(rng.randint(0, 2)):  # break it, most of the time
            start, size = rng.choice(pieces)
            rng.choice([start, size])[rng.randint(0, 1)] += rng.choice([-1, 1])
        if all(min(start) >= 0 and min(size) > 0 for start, size in pieces):
            assert (tiling_problem(shape, pieces) == "") == covers(shape, pieces)
            right += covers(shape, pieces)
    assert right > 500


def resealed(path: Path, change: Any) -> Path:
    """Change a manifest and give it a right hash."""
    fields = json.loads((path / MANIFEST).read_text())
    del fields["xxh3"]
    change(fields)
    body = json.dumps(fields).encode()[1:]
    (path / MANIFEST).write_bytes(b'{"xxh3":"%s",\n%s' % (xxhash.xxh3_128_hexdigest(body).encode(), body))
    return path


def move(corner: str, by: list[int]) -> Any:
    def change(fields: dict[str, Any]) -> None:
        piece = fields["tensors"]["a"]["pieces"][1]
        piece[corner] = [n + m for n, m in zip(piece[corner], by, strict=True)]

    return change


WRONG: dict[str, tuple[Any, str]] = {
    "a piece missing": (
        lambda f: f["tensors"]["a"]["pieces"].pop(),
        "tensors.a: its pieces hold 12 of 24 elements",
    ),
    "no piece": (lambda f: f["tensors"]["a"].update(pieces=[]), "its pieces hold 0 of 24 elements"),
    "overlap": (move("start", [-1, 0]), "two of its pieces overlap at row 3, column 0"),
    "outside": (move("start", [1, 0]), "a piece of shape [4, 3] at [5, 0] is outside of [8, 3]"),
    "smaller": (move("shape", [0, -1]), "its pieces hold 20 of 24 elements"),
    "empty": (move("shape", [-4, 0]), "one of its pieces is empty"),
    "of other dimensions": (
        lambda f: f["tensors"]["a"]["pieces"][1].update(start=[4]),
        "has other dimensions than [8, 3]",
    ),
    "another dimension cut": (
        lambda f: (
            f["tensors"]["a"].update(shape=[8, 3, 2])
            or [p.update(start=[*p["start"], 0], shape=[*p["shape"], 1]) for p in f["tensors"]["a"]["pieces"]]
        ),
        "cuts another dimension",
    ),
    "a file twice": (
        lambda f: f["tensors"]["a"]["pieces"][1].update(file="model-00001-of-00002.safetensors"),
        "two of its pieces are in one file",
    ),
    "no such file": (
        lambda f: f["tensors"]["a"]["pieces"][1].update(file="elsewhere.safetensors"),
        "a piece of a is not in elsewhere.safetensors",
    ),
    "behind the end": (
        lambda f: f["tensors"]["a"]["pieces"][1].update(offset=10_000),
        "a piece of a is not in model-00002-of-00002.safetensors",
    ),
}


def write_halves(store: CheckpointStore, a: Tensor, step: int) -> Path:
    """One tensor of 8 rows in the files of two ranks."""
    with store.begin(step) as pending:
        for rank in range(2):
            file = f"model-{rank + 1:05d}-of-00002.safetensors"
            with TensorWriter(pending.folder / file, [("a", a.dtype, (4, 3))]) as writer:
                writer.write(a[4 * rank : 4 * rank + 4])
            pending.add(file, writer.close(), {"a": ((4 * rank, 0), (8, 3))})
        return pending.commit(**FIELDS)


@pytest.mark.parametrize("kind", WRONG)
def test_a_manifest_whose_pieces_are_not_the_tensor_is_refused(store: CheckpointStore, kind: str) -> None:
    change, problem = WRONG[kind]
    path = resealed(write_halves(store, torch.ones(8, 3), 1), change)
    (found,) = store.verify(path)
    assert found.startswith("manifest.json: ")
    assert problem in found


DAMAGE: dict[str, tuple[Any, str]] = {
    "removed": (lambda p: p.unlink(), "missing"),
    "of another step": (
        lambda p: shutil.copy(p.parent.parent / "step-00000001" / p.name, p),
        "its content changed since it was saved",
    ),
    "of another rank": (
        lambda p: shutil.copy(p.with_name("model-00001-of-00002.safetensors"), p),
        "its content changed since it was saved",
    ),
    "cut": (lambda p: os.truncate(p, 100), "100 bytes long"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_lost_or_stale_file_of_a_rank_is_named_and_the_one_before_is_used(
    store: CheckpointStore, kind: str
) -> None:
    a = torch.arange(24.0).view(8, 3)
    write_halves(store, -a, 1)
    path = write_halves(store, a, 2)
    checkpoint = Checkpoint(path, Manifest.load(path / MANIFEST))
    damage, problem = DAMAGE[kind]
    damage(path / "model-00002-of-00002.safetensors")
    assert [line.split(", ")[0] for line in store.verify(path)] == [
        f"model-00002-of-00002.safetensors: {problem}"
    ]
    found = CheckpointStore(store.folder, keep=2).latest_valid(lambda _: None)
    assert found is not None
    assert found.manifest.step == 1
    with checkpoint.open() as stored:
        assert stored.read("a", 0, 4).equal(a[:4]), "the other piece is still whole"
        with pytest.raises(CheckpointError):
            stored.read("a")


def test_a_damaged_piece_is_found_when_it_is_read_whole(store: CheckpointStore) -> None:
    path = write_halves(store, torch.ones(8, 3), 1)
    checkpoint = Checkpoint(path, Manifest.load(path / MANIFEST))
    piece = checkpoint.manifest.tensors["a"].pieces[1]
    raw = bytearray((path / piece.file).read_bytes())
    raw[piece.offset + 5] ^= 1
    (path / piece.file).write_bytes(raw)
    with checkpoint.open() as stored:
        with pytest.raises(CheckpointError, match="a is not what was saved"):
            stored.read("a", 2)
        with pytest.raises(CheckpointError, match="a is not what was saved"):
            checkpoint.load("model.safetensors")
        assert stored.read("a", 2, 7).shape == (5, 3), "a part has no hash of its own"


def test_files_of_a_folder_that_is_not_shared_are_missed(store: CheckpointStore) -> None:
    with store.begin(1) as pending:
        with TensorWriter(pending.folder / "here", [("a", torch.float32, (4,))]) as writer:
            writer.write(torch.ones(4))
        info = writer.close()
        with pytest.raises(CheckpointError, match="shared file system") as raised:
            pending.add("elsewhere", info)
        assert "elsewhere" in raised.value.where
        with pytest.raises(CheckpointError, match="bytes long, 7 were written"):
            pending.add("here", FileInfo(7, info.xxh3, info.tensors))
    assert list(store.folder.iterdir()) == []


def test_ranks_that_disagree_or_leave_something_out_commit_nothing(store: CheckpointStore) -> None:
    def commit(second: tuple[torch.dtype, Corner, Corner] | None) -> None:
        with store.begin(1) as pending:
            pending.writer("x", [("a", torch.float32, (2,))], {"a": ((0,), (4,))}).write(torch.ones(2))
            if second:
                dtype, start, whole = second
                pending.writer("y", [("a", dtype, (2,))], {"a": (start, whole)}).write(
                    torch.ones(2).to(dtype)
                )
            pending.commit(**FIELDS)

    for second, problem in (
        (None, "its pieces hold 2 of 4 elements"),
        ((torch.float32, (1,), (4,)), "two of its pieces overlap"),
        ((torch.float32, (2,), (5,)), "several dtypes or shapes"),
        ((torch.bfloat16, (2,), (4,)), "several dtypes or shapes"),
    ):
        with pytest.raises(ValueError, match=problem):
            commit(second)
        assert list(store.folder.iterdir()) == []


def first_version(fields: dict[str, Any]) -> None:
    """A manifest as version 1 had it: every tensor in one file."""
    fields["version"] = 1
    for tensor in fields["tensors"].values():
        (piece,) = tensor.pop("pieces")
        del piece["start"]
        tensor |= piece


def test_checkpoints_of_version_1_are_read(store: CheckpointStore) -> None:
    path = resealed(save(store, 3), first_version)
    assert json.loads((path / MANIFEST).read_text())["tensors"]["norm"].keys() == {
        *("file", "dtype", "shape", "offset", "bytes", "xxh3"),
    }
    assert store.verify(path) == []
    assert_holds(store.folder, 3)
    again = Manifest.load(path / MANIFEST)
    assert again.version == 2
    assert Manifest.load(save(store, 3) / MANIFEST).tensors == again.tensors
    resealed(store.folder / "step-00000003", lambda fields: fields.update(version=1))
    assert "manifest.json: " in store.verify(store.folder / "step-00000003")[0]
