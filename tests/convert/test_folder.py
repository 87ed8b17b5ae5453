"""Foreign folders are read by rows when they are right, and refused with one clear error when not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.convert.dialects import DIALECTS
from growlm.convert.folder import FolderWeights
from growlm.errors import CheckpointError, GrowLMError
from tests.convert.folders import FAMILY, edit_config, edit_index, edit_tensors, make_folder

Break = Callable[[Path], object]
SHARDED = 6000
"""Bytes of a shard: the small llama gets four."""


@pytest.mark.parametrize("dialect", FAMILY)
@pytest.mark.parametrize("shard_bytes", [SHARDED, 1 << 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_row_is_what_was_written(
    dialect: str, shard_bytes: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    state = make_folder(tmp_path / "m", dialect, shard_bytes=shard_bytes, dtype=dtype)
    with FolderWeights(tmp_path / "m") as weights:
        assert (len(weights.files) > 1) is (shard_bytes == SHARDED)
        for name, tensor in state.items():
            assert weights.dtype(name) == dtype
            assert torch.equal(weights.read(name), tensor)
            assert torch.equal(weights.read(name, 1, 3), tensor[1:3])
            assert weights.read(name, 0, 0).shape == (0, *tensor.shape[1:])


def refused(folder: Path) -> GrowLMError:
    with pytest.raises(CheckpointError) as error:
        FolderWeights(folder).close()
    return error.value


def header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` work on the header of the tensor file."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    fields = json.loads(raw[8 : 8 + size])
    change(fields)
    text = json.dumps(fields).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


def overlap(fields: dict[str, Any]) -> None:
    first, second = sorted(
        (f for n, f in fields.items() if n != "__metadata__"), key=lambda f: f["data_offsets"]
    )[:2]
    size = second["data_offsets"][1] - second["data_offsets"][0]
    second["data_offsets"] = [first["data_offsets"][0], first["data_offsets"][0] + size]


def integers(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({NORM: torch.ones(16, dtype=torch.int32)}))


NORM = "model.norm.weight"
SIZES = {"num_hidden_layers": 2, "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24}
LIES: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 20}, "says hidden_size = 20, the tensors say 16"),
    ({"num_attention_heads": 8}, "says num_attention_heads = 8, the tensors say 4"),
    ({"num_key_value_heads": 1}, "says num_key_value_heads = 1, the tensors say 2"),
    ({"intermediate_size": 32}, "says intermediate_size = 32, the tensors say 24"),
    ({"num_hidden_layers": 3}, "says num_hidden_layers = 3, the tensors say 2"),
    ({"num_hidden_layers": 1}, "says num_hidden_layers = 1, the tensors say 2"),
    ({"vocab_size": 49}, "says vocab_size = 49, the tensors say 50"),
    ({"hidden_size": 20, "vocab_size": 49}, "does not fit the tensors"),
    *(({key: 10**12}, f"says {key} = {10**12}, the tensors say {value}") for key, value in SIZES.items()),
    ({"num_hidden_layers": 10**12, "vocab_size": 10**12}, "does not fit the tensors"),
]


@pytest.mark.parametrize(("keys", "what"), LIES)
def test_a_config_that_lies_is_caught_and_its_key_named(
    keys: dict[str, Any], what: str, tmp_path: Path
) -> None:
    make_folder(tmp_path)
    edit_config(tmp_path, **keys)
    error = refused(tmp_path)
    assert what in error.what
    assert error.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("dialect", FAMILY)
def test_absurd_sizes_are_refused_in_every_dialect(dialect: str, tmp_path: Path) -> None:
    make_folder(tmp_path, dialect)
    keys = DIALECTS[dialect].keys
    before = json.loads((tmp_path / "config.json").read_text())
    for field in ("n_layers", "vocab_size", "d_model", "d_ff"):
        edit_config(tmp_path, **before | {keys[field]: 10**12})
        assert "config.json" in refused(tmp_path).where


BROKEN: list[tuple[str, Break, str]] = [
    ("no config", lambda p: (p / "config.json").unlink(), "config.json cannot be read"),
    ("not json", lambda p: (p / "config.json").write_text("{"), "config.json cannot be read"),
    ("a list", lambda p: (p / "config.json").write_text("[]"), "config.json cannot be read"),
    ("no tensors", lambda p: (p / "model.safetensors").unlink(), "There is no model.safetensors"),
    ("unknown code", lambda p: edit_config(p, model_type="x", auto_map={"A": "b.C"}), "code of its own"),
    ("missing", lambda p: edit_tensors(p, lambda t: t.pop(NORM)), f"{NORM} is missing"),
    ("extra", lambda p: edit_tensors(p, lambda t: t.update(x=torch.ones(1))), "x is not a tensor"),
    ("integers", integers, "I32"),
    ("overlap", lambda p: header(p, overlap), "A tensor file is damaged"),
    ("cut", lambda p: os.truncate(p / "model.safetensors", 9000), "A tensor file is damaged"),
    ("empty", lambda p: (p / "model.safetensors").write_bytes(b""), "A tensor file is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("break_", "what"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_broken_folder_is_refused(break_: Break, what: str, tmp_path: Path) -> None:
    make_folder(tmp_path, tied=False)
    break_(tmp_path)
    error = refused(tmp_path)
    assert what in str(error)
    assert error.where.startswith(str(tmp_path))
    assert error.fix
    assert "ckpt verify" not in error.fix


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8"])
def test_quantised_weights_are_refused_as_such(dtype: str, tmp_path: Path) -> None:
    make_folder(tmp_path)
    header(tmp_path, lambda fields: fields[NORM].update(dtype=dtype))
    error = refused(tmp_path)
    assert dtype in error.why
    assert "quantised weights cannot be read" in error.fix


@pytest.mark.parametrize("keys", [
    {"hidden_act": "relu"}, {"hidden_size": None}, {"hidden_size": "16"},
    {"rope_parameters": {"rope_type": "yarn"}},
    {"num_attention_heads": 5}, {"model_type": "mamba"}, {"rms_norm_eps": -1}, {"tie_word_embeddings": 3},
])  # fmt: skip
def test_what_config_json_cannot_say_is_named_with_its_path(keys: dict[str, Any], tmp_path: Path) -> None:
    make_folder(tmp_path)
    edit_config(tmp_path, **keys)
    error = refused(tmp_path)
    assert error.where.startswith(str(tmp_path / "config.json: "))
    assert error.fix


def test_an_old_pickle_is_never_opened(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    error = refused(tmp_path)
    assert "pickled" in error.what
    assert "save_pretrained" in error.fix


FIRST = "model-00001-of"
BROKEN_INDEX: list[tuple[str, Break, str]] = [
    ("missing shard", lambda p: next(p.glob(f"{FIRST}*")).unlink(), "is missing"),
    ("parent", lambda p: edit_index(p, lambda m: m.update({NORM: "../x.safetensors"})), "outside"),
    ("absolute", lambda p: edit_index(p, lambda m: m.update({NORM: "/etc/x.safetensors"})), "outside"),
    ("subfolder", lambda p: edit_index(p, lambda m: m.update({NORM: "a/b.safetensors"})), "outside"),
    ("not listed", lambda p: edit_index(p, lambda m: m.pop(NORM)), "the index does not name"),
    ("listed", lambda p: edit_index(p, lambda m: m.update(x=next(iter(m.values())))), "misses a tensor: x"),
    ("not a name", lambda p: edit_index(p, lambda m: m.update({NORM: 3})), "no table of tensors"),
    ("empty", lambda p: edit_index(p, lambda m: m.clear()), "no table of tensors"),
]  # fmt: skip


@pytest.mark.parametrize(("break_", "what"), [b[1:] for b in BROKEN_INDEX], ids=[b[0] for b in BROKEN_INDEX])
def test_an_index_that_does_not_hold_is_refused(break_: Break, what: str, tmp_path: Path) -> None:
    make_folder(tmp_path / "m", shard_bytes=SHARDED)
    break_(tmp_path / "m")
    assert what in str(refused(tmp_path / "m"))


def test_links_lead_no_further_than_a_hub_cache(tmp_path: Path) -> None:
    """The cache of the hub keeps its files in `blobs`, beside the snapshots that link to them."""
    make_folder(tmp_path / "cache" / "snapshots" / "1f0a")
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "1f0a", tmp_path / "cache" / "blobs"
    blobs.mkdir()
    file = snapshot / "model.safetensors"
    file.rename(blobs / "0b5e")
    file.symlink_to("../../blobs/0b5e")
    FolderWeights(snapshot).close()
    file.unlink()
    shutil.move(blobs / "0b5e", tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert "outside the folder" in refused(snapshot).what


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("dialect", "name", "part"), [
    ("llama", "model.layers.1.mlp.down_proj.weight", "blocks.1.mlp.down_proj.weight"),
    ("gpt2", "transformer.h.1.attn.c_attn.weight", "blocks.1.attn.v_proj.weight"),
])  # fmt: skip
def test_a_value_that_is_no_number_is_refused_where_it_is_read(
    value: float, dialect: str, name: str, part: str, tmp_path: Path
) -> None:
    make_folder(tmp_path, dialect)
    edit_tensors(tmp_path, lambda t: t[name].view(-1)[-1].fill_(value))
    with FolderWeights(tmp_path) as weights:
        weights.read("norm.weight")
        with pytest.raises(CheckpointError, match=f"{name} holds values that are not numbers"):
            weights.read(part)


def test_large_values_are_no_infinities(tmp_path: Path) -> None:
    make_folder(tmp_path)
    edit_tensors(tmp_path, lambda t: t[NORM].fill_(3e38))
    with FolderWeights(tmp_path) as weights:
        assert (weights.read("norm.weight") == 3e38).all()


@pytest.mark.parametrize(("dialect", "head", "embedding"), [
    ("llama", "lm_head.weight", "model.embed_tokens.weight"),
    ("gpt2", "lm_head.weight", "transformer.wte.weight"),
    ("gpt_neox", "embed_out.weight", "gpt_neox.embed_in.weight"),
])  # fmt: skip
def test_a_tied_head_may_be_stored_if_it_is_the_embedding(
    dialect: str, head: str, embedding: str, tmp_path: Path
) -> None:
    make_folder(tmp_path, dialect, tied=True)
    edit_tensors(tmp_path, lambda t: t.update({head: t[embedding].clone()}))
    FolderWeights(tmp_path).close()
    edit_tensors(tmp_path, lambda t: t[head].view(-1)[-1].add_(1))
    error = refused(tmp_path)
    assert f"{head} differs from {embedding}" in error.what
    assert "set tie_word_embeddings to false" in error.fix
    edit_config(tmp_path, tie_word_embeddings=False)
    FolderWeights(tmp_path).close()
    edit_config(tmp_path, tie_word_embeddings=True)
    edit_tensors(tmp_path, lambda t: t.update({head: t[embedding].bfloat16()}))
    assert "differs" in refused(tmp_path).what
