from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from growlm.data.dataset import TokenDataset
from growlm.data.manifest import BLOCK_BYTES
from growlm.data.mixture import Mixture, Span
from growlm.data.prepare import prepare
from growlm.errors import DataError
from tests.data.texts import english, write_jsonl


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    """A prepared folder that a test may damage."""
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def shards(folder: Path, source: str = "en", split: str = "train") -> list[Path]:
    return sorted((folder / source).glob(f"{split}-*.bin"))


def flip_bit(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 0b100
    path.write_bytes(content)


def test_reads_equal_the_files_also_across_shards(prepared: Path, dataset: TokenDataset):
    files = shards(prepared)
    assert len(files) > 2
    stream = np.concatenate([np.fromfile(path, "<u2") for path in files])
    assert len(stream) == dataset.tokens("en", "train")
    for start, count in (
        (0, 10),
        (2995, 10),
        (2999, 4000),
        (3000, 1),
        (len(stream) - 5, 5),
        (0, len(stream)),
    ):
        np.testing.assert_array_equal(
            dataset.read("en", "train", start, count), stream[start : start + count]
        )
    for start, count in ((-1, 2), (len(stream) - 1, 2)):
        with pytest.raises(IndexError):
            dataset.read("en", "train", start, count)


def test_tokens_are_read_only(dataset: TokenDataset):
    with pytest.raises(ValueError, match="read-only"):
        dataset.read("en", "train", 0, 4)[0] = 1


def test_fingerprint_is_of_the_content(prepared: Path, copy: Path):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))
    first = TokenDataset.open(prepared)
    assert TokenDataset.open(copy).fingerprint == first.fingerprint
    manifest["sources"]["en"]["splits"]["train"]["shards"][0]["blocks"][0] = "0" * 16
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert TokenDataset.open(copy).fingerprint != first.fingerprint


def test_validation_is_always_the_same_and_spread(dataset: TokenDataset):
    total = dataset.tokens("en", "valid")
    x, y, *_ = dataset.validation("en", 32, 96)
    again = dataset.validation("en", 32, 96)
    np.testing.assert_array_equal(x, again[0])
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    assert x.shape == y.shape == (3, 32)
    assert x.dtype == np.int64
    everything, *_ = dataset.validation("en", 32, 10**9)
    assert len(everything) == (total - 1) // 32
    np.testing.assert_array_equal(everything.ravel(), dataset.read("en", "valid", 0, everything.size))
    assert dataset.validation("en", 32, 1)[0].shape == (1, 32)
    with pytest.raises(DataError, match="shorter than one sequence"):
        dataset.validation("en", total, 1)


def test_intact_folder_verifies(dataset: TokenDataset):
    dataset.verify()


@pytest.mark.parametrize("change", [-2, 2])
def test_shard_of_the_wrong_size_is_refused_at_open(copy: Path, change: int):
    path = shards(copy)[1]
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"ab")
    with pytest.raises(DataError, match="cut short" if change < 0 else "too long") as caught:
        TokenDataset.open(copy)
    assert path.name in str(caught.value)


def test_missing_shard_is_refused_at_open(copy: Path):
    shards(copy)[0].unlink()
    with pytest.raises(DataError, match="shard is missing"):
        TokenDataset.open(copy)


def test_swapped_shards_are_found(copy: Path):
    first, second, *_ = shards(copy)
    first.rename(copy / "x")
    second.rename(first)
    (copy / "x").rename(second)
    dataset = TokenDataset.open(copy)
    with pytest.raises(DataError, match="swapped"):
        dataset.verify()
    with pytest.raises(DataError, match="swapped"):
        dataset.read("en", "train", 0, 1)


def test_flipped_bit_is_found_where_it_is(copy: Path):
    path = shards(copy)[-1]
    flip_bit(path, 100)
    dataset = TokenDataset.open(copy)
    dataset.read("en", "train", 0, 100)
    with pytest.raises(DataError) as caught:
        dataset.verify()
    assert f"{path}: block 0, bytes 0 to {path.stat().st_size}" in str(caught.value)
    units = (dataset.tokens("en", "train") - 1) // 64
    mixture = Mixture(dataset, [Span(1, units, 64, {"en": 1.0})], 0)
    with pytest.raises(DataError, match="damaged"):
        mixture.batch(0, 0)


def test_blocks_are_verified_when_first_touched(tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", english(4000))
    prepare(tmp_path / "out", {"en": [path]}, vocab_size=263)
    (shard,) = shards(tmp_path / "out")
    assert shard.stat().st_size > 2 * BLOCK_BYTES
    flip_bit(shard, BLOCK_BYTES + 7)
    dataset = TokenDataset.open(tmp_path / "out")
    per_block = BLOCK_BYTES // 2
    dataset.read("en", "train", 0, per_block)
    dataset.read("en", "train", 2 * per_block, 10)
    with pytest.raises(DataError, match=f"block 1, bytes {BLOCK_BYTES} to {2 * BLOCK_BYTES}"):
        dataset.read("en", "train", per_block - 1, 2)


def test_other_tokenizer_is_refused(copy: Path):
    content = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(content.replace("endoftext", "endoftexts"))
    with pytest.raises(DataError, match="not the one that wrote its ids"):
        TokenDataset.open(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="tokenizer of a data folder is missing"):
        TokenDataset.open(copy)


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"format": "growlm-data", "version": 3}', "[1]"])
def test_bad_manifest_is_refused(copy: Path, content: str | None):
    if content is None:
        (copy / "manifest.json").unlink()
    else:
        (copy / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        TokenDataset.open(copy)


def test_newer_format_is_refused(copy: Path):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"version": 3}))
    with pytest.raises(DataError, match="growlm-data 2"):
        TokenDataset.open(copy)
