import json
import os
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from growlm.checkpoint.format import DTYPES, TensorReader, TensorWriter, hash_file, hash_tensor
from growlm.errors import CheckpointError, DiskError

from .helpers import in_child

torch.set_num_threads(1)
WIDE_FIRST = sorted(DTYPES.values(), key=lambda dtype: -dtype.itemsize)


def some(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=torch.manual_seed(seed)).to(
        dtype
    )


def write(path: Path, tensors: dict[str, torch.Tensor], rows: int = 1 << 40):
    with TensorWriter(path, [(name, t.dtype, tuple(t.shape)) for name, t in tensors.items()]) as writer:
        for tensor in tensors.values():
            for part in tensor.split(rows) if tensor.dim() else [tensor]:
                writer.write(part)
    return writer.close()


def read(path: Path) -> dict[str, torch.Tensor]:
    with TensorReader(path) as reader:
        return {name: reader.read(name) for name in reader.names}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=8),
    rows=st.integers(1, 4),
)
def test_safetensors_reads_ours_and_we_read_its(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, ...]], rows: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    tensors = {
        f"{i}/é": some(dtype, s, i) for i, (dtype, s) in enumerate(zip(WIDE_FIRST, shapes, strict=False))
    }
    info = write(folder / "ours", tensors, rows)
    safetensors.torch.save_file(tensors, folder / "theirs")
    assert same(safetensors.torch.load_file(folder / "ours"), tensors)
    assert same(read(folder / "theirs"), tensors)
    assert same(read(folder / "ours"), tensors)
    assert info.bytes == (folder / "ours").stat().st_size
    assert info.xxh3 == hash_file(folder / "ours")
    for name, tensor in tensors.items():
        assert info.tensors[name].xxh3 == hash_tensor(tensor)


def test_every_dtype_every_slice_and_views(tmp_path: Path) -> None:
    tensors = {str(dtype): some(dtype, (7, 3)) for dtype in WIDE_FIRST}
    info = write(tmp_path / "f", {name: t.t().contiguous().t() for name, t in tensors.items()}, rows=3)
    assert [info.tensors[n].offset % t.dtype.itemsize for n, t in tensors.items()] == [0] * len(tensors)
    with TensorReader(tmp_path / "f") as reader:
        for name, tensor in tensors.items():
            assert reader.info(name).shape == (7, 3)
            for start in range(8):
                for stop in range(start, 8):
                    assert torch.equal(reader.read(name, start, stop), tensor[start:stop])
            with pytest.raises(IndexError):
                reader.read(name, 0, 8)


def test_the_header_is_aligned_and_holds_the_metadata_that_readers_expect(tmp_path: Path) -> None:
    for length in range(1, 12):
        write(tmp_path / f"{length}", {"n" * length: torch.ones(2)})
        raw = (tmp_path / f"{length}").read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        assert size % 8 == 0
        assert json.loads(raw[8 : 8 + size])["__metadata__"] == {"format": "pt"}


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """64 MiB in and out by rows through a process that may grow by 24 MiB at most."""

    def peak() -> int:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

    def stream() -> None:
        rows = torch.ones(64, 1 << 10)
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        with TensorWriter(tmp_path / "f", [("a", torch.float32, (1 << 14, 1 << 10))]) as writer:
            for _ in range(1 << 8):
                writer.write(rows)
        with TensorReader(tmp_path / "f") as reader:
            for start in range(0, 1 << 14, 64):
                assert reader.read("a", start, start + 64).sum() == rows.sum()
        assert peak() - before < 24 << 10

    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak of a process's memory cannot be reset here")
    assert in_child(stream) == 0


def test_contiguous_memory_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.ones(300, 1 << 14)
    inside = range(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes)
    chunks = []

    def record(_fd: int, data: memoryview) -> int:
        if isinstance(data, memoryview):
            chunks.append((torch.frombuffer(data, dtype=torch.uint8).data_ptr() in inside, len(data)))
        return len(data)

    with TensorWriter(tmp_path / "f", [("a", tensor.dtype, tuple(tensor.shape))]) as writer:
        monkeypatch.setattr("growlm.checkpoint.format.write_all", record)
        writer.write(tensor)
    assert sum(size for _, size in chunks) == tensor.nbytes
    assert all(shared for shared, _ in chunks)


@pytest.mark.parametrize(
    "rows",
    [
        torch.ones(2, 4),
        torch.ones(2, 3, dtype=torch.float64),
        torch.ones(5, 3),
        torch.ones(3),
        torch.tensor(1.0),
    ],
    ids=["width", "dtype", "too many", "one row short of a dimension", "scalar"],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, rows: torch.Tensor) -> None:
    writer = TensorWriter(tmp_path / "f", [("a", torch.float32, (4, 3))])
    with pytest.raises(ValueError, match="a is F32"):
        writer.write(rows)
    writer.write(torch.ones(4, 3))
    with pytest.raises(ValueError, match="every tensor is complete"):
        writer.write(torch.ones(1, 3))
    writer.close()


def test_a_file_is_complete_or_has_no_info(tmp_path: Path) -> None:
    writer = TensorWriter(tmp_path / "f", [("a", torch.float32, (4, 3))])
    writer.write(torch.ones(3, 3))
    with pytest.raises(ValueError, match="a is not complete"):
        writer.close()
    writer.abandon()


@pytest.mark.parametrize(
    "entries",
    [
        [("a", torch.bool, (3,)), ("b", torch.float32, (2,))],
        [("a", torch.bool, (3,)), ("a", torch.bool, (2,))],
        [("__metadata__", torch.bool, (3,))],
        [("a", torch.complex64, (3,))],
    ],
    ids=["misaligned", "duplicate", "reserved", "dtype"],
)
def test_entries_that_cannot_be_written_are_refused(
    tmp_path: Path, entries: list[tuple[str, torch.dtype, tuple[int, ...]]]
) -> None:
    with pytest.raises(ValueError, match="wider dtypes come first"):
        TensorWriter(tmp_path / "f", entries)


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("precious")
    with pytest.raises(DiskError, match="A disk operation failed"):
        TensorWriter(tmp_path / "f", [])
    assert (tmp_path / "f").read_text() == "precious"


def entry(begin: int, end: int, dtype: object = "F32", shape: object = (1,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE: dict[str, tuple[object, int]] = {
    "not an object": ([], 0),
    "hole": ({"a": entry(0, 4), "b": entry(8, 12)}, 12),
    "overlap": ({"a": entry(0, 4), "b": entry(0, 4)}, 4),
    "does not begin at 0": ({"a": entry(4, 8)}, 8),
    "longer than the file": ({"a": entry(0, 4)}, 3),
    "shorter than the file": ({"a": entry(0, 4)}, 5),
    "size is not shape x itemsize": ({"a": entry(0, 8)}, 8),
    "unknown dtype": ({"a": entry(0, 4, "F8_E4M3")}, 4),
    "dtype is a list": ({"a": entry(0, 4, ["F32"])}, 4),
    "negative shape": ({"a": entry(0, 4, "F32", [-1, -1])}, 4),
    "boolean shape": ({"a": entry(0, 4, "F32", [True])}, 4),
    "huge shape": ({"a": entry(0, 0, "F32", [0, 1 << 62])}, 0),
    "shape is a number": ({"a": entry(0, 4, "F32", 1)}, 4),
    "fractional offset": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1.0]}}, 1),
    "three offsets": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, 1),
    "extra key": ({"a": entry(0, 4) | {"pickle": 1}}, 4),
    "missing key": ({"a": {"dtype": "F32", "shape": [1]}}, 4),
    "metadata is no table of strings": ({"__metadata__": {"a": 1}}, 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_breaks_a_rule_is_refused(tmp_path: Path, name: str) -> None:
    header, data = HOSTILE[name]
    text = json.dumps(header).encode()
    (tmp_path / "f").write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    what = "A tensor is of a kind" if name == "unknown dtype" else "A tensor file is damaged"
    with pytest.raises(CheckpointError, match=what):
        TensorReader(tmp_path / "f")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", 2) + b"\xff\xfe",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 5007) + b'{"a":' + b"9" * 5001 + b"}",
        struct.pack("<Q", 15) + b'{"a":{},"a":{}}',
        struct.pack("<Q", 3) + b"NaN",
    ],
    ids=["empty", "short", "huge length", "length", "utf-8", "deep", "huge number", "duplicate", "nan"],
)
def test_what_is_no_header_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(CheckpointError, match="A tensor file is damaged"):
        TensorReader(tmp_path / "f")


def test_a_missing_file_and_one_cut_while_open_are_clear(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be opened"):
        TensorReader(tmp_path / "f")
    write(tmp_path / "f", {"a": torch.ones(100)})
    with TensorReader(tmp_path / "f") as reader:
        os.truncate(tmp_path / "f", 200)
        with pytest.raises(CheckpointError, match="the file ends at byte 200"):
            reader.read("a")
