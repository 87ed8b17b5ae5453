"""Folders grow into folders: the same bits as in memory, whole or not at all, and transformers agrees."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from growlm.checkpoint.disk import hash_file
from growlm.convert import shards
from growlm.convert.folder import FolderWeights
from growlm.convert.folding import foldings
from growlm.convert.grow import grow_folder
from growlm.errors import CheckpointError, DiskError, GrowthError, RecipeError
from growlm.growth import chunks
from growlm.growth.apply import grow_rows
from growlm.growth.operators import plan_growth
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import GrowthTable
from tests.checkpoint.helpers import in_child
from tests.convert.folders import FAMILY, edit_config, edit_tensors, make_folder

GROWTHS: list[dict[str, Any]] = [
    {"operator": "clone", "noise": 0.2},
    {"operator": "lemon", "depth": "zero_block"},
    {"operator": "zero"},
    {"operator": "clone", "depth": "stack"},
]
SHARD = 20_000


def grow(
    source: Path,
    out: Path,
    settings: dict[str, Any] = GROWTHS[0],
    certificate: Any = "streaming",
    **sizes: int,
) -> dict[str, Any]:
    """Grow a folder in every width and in depth, or to `sizes`."""
    with FolderWeights(source) as old:
        c = old.config
        wider = {"d_model": 32, "n_heads": 8, "n_kv_heads": 2 * c.n_kv_heads, "d_ff": 56, "n_layers": 3}
        if settings["operator"] == "zero" and c.family in ("gpt2", "neox", "opt"):
            wider = {"d_ff": 56, "n_layers": 3}
        growth = plan_growth(c, c.with_(**sizes or wider), GrowthTable.model_validate(settings), seed=3)
        tokens = torch.arange(40).view(2, 20)
        batch = tokens, tokens + 1
        return grow_folder(old, growth, out, batch=batch, certificate=certificate, shard_bytes=SHARD)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in folder.iterdir()}


@pytest.mark.parametrize("dialect", FAMILY)
@pytest.mark.parametrize("settings", GROWTHS, ids=lambda s: "-".join(map(str, s.values())))
def test_a_streamed_folder_equals_growing_whole_tensors(
    dialect: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 700)
    dtype = torch.bfloat16 if settings["operator"] == "clone" else torch.float32
    if dialect == "qwen3" and settings["operator"] != "clone":
        pytest.skip("its head norms share an epsilon with the others, which these operators change")
    state = make_folder(tmp_path / "old", dialect, dtype=dtype)
    entry = grow(tmp_path / "old", tmp_path / "new", settings)
    with FolderWeights(tmp_path / "old") as old, FolderWeights(tmp_path / "new") as new:
        assert len(new.files) > 1
        target = old.config.with_(
            **{k: entry["to"][k] for k in ("d_model", "n_heads", "n_kv_heads", "d_ff", "n_layers")}
        )
        growth = plan_growth(old.config, target, GrowthTable.model_validate(settings), seed=3)
        factors = foldings(growth.new, old.dialect, dtype)
        for name, parameter in parameter_table(growth.new).items():
            whole = grow_rows(
                growth, parameter, "weight", 0, parameter.shape[0], lambda n, a, b: state[n][a:b]
            )
            assert new.dtype(name) == dtype
            assert torch.equal(new.read(name), (whole * factors.get(name, 1.0)).to(dtype)), name
        assert entry["certificate"]["exact"] is growth.exact


@pytest.mark.parametrize("dialect", FAMILY)
@pytest.mark.parametrize("certificate", ["full", "streaming", "sampled"])
def test_transformers_computes_what_it_did(dialect: str, certificate: str, tmp_path: Path) -> None:
    """Cloned, a tied model needs its logits divided by two: they are folded into the weights."""
    make_folder(tmp_path / "old", dialect)
    entry = grow(tmp_path / "old", tmp_path / "new", certificate=certificate)
    assert entry["certificate"]["kind"] == certificate
    assert entry["to"]["logit_mult"] == 0.5
    tokens = torch.arange(40).view(2, 20)
    old, new = (AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("old", "new"))
    assert new.dtype == torch.float32
    with torch.no_grad():
        assert (old(tokens).logits - new(tokens).logits).abs().max() < 1e-5
    if "max_dlogit" in entry["certificate"]:
        assert entry["certificate"]["max_dlogit"] < 1e-5


def test_what_is_no_weight_stays_and_the_history_grows(tmp_path: Path) -> None:
    make_folder(tmp_path / "a")
    edit_config(tmp_path / "a", auto_map={"AutoConfig": "x.Y"}, bos_token_id=7)
    (tmp_path / "a" / "modeling.py").write_text("raise SystemExit")
    (tmp_path / "a" / "README.md").write_text("about the small model")
    first = grow(tmp_path / "a", tmp_path / "b")
    second = grow(tmp_path / "b", tmp_path / "c", {"operator": "clone", "depth": "interpose"}, n_layers=5)
    names = {path.name for path in (tmp_path / "c").iterdir() if path.suffix != ".safetensors"}
    index = "model.safetensors.index.json"
    assert names == {"config.json", "growth.json", index, "merges.txt", "generation_config.json"}
    assert (tmp_path / "c" / "merges.txt").read_bytes() == (tmp_path / "a" / "merges.txt").read_bytes()
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"], config["bos_token_id"]) == (5, 32, 7)
    assert "auto_map" not in config
    lineage = json.loads((tmp_path / "c" / "growth.json").read_text())["lineage"]
    assert lineage == [first, second]
    files = {path.name: path for path in (tmp_path / "c").glob("*.safetensors")}
    assert second["files"] == {n: {"bytes": p.stat().st_size, "xxh3": hash_file(p)} for n, p in files.items()}


PLACES = ("checkpoint.write", "shards.after_file", "shards.after_journal")
POINTS = [f"{place}:kill@{n}" for place in PLACES for n in (1, 3)]


@pytest.mark.parametrize("death", [*POINTS, "shards.before_rename:kill"])
def test_killed_and_resumed_is_straight(death: str, tmp_path: Path) -> None:
    make_folder(tmp_path / "old")
    grow(tmp_path / "old", tmp_path / "straight")
    assert in_child(lambda: grow(tmp_path / "old", tmp_path / "new"), death) == -9
    assert not (tmp_path / "new").exists()
    grow(tmp_path / "old", tmp_path / "new")
    assert hashes(tmp_path / "new") == hashes(tmp_path / "straight")
    assert not (tmp_path / "new.partial").exists()


def test_another_growth_or_another_source_does_not_go_on(tmp_path: Path) -> None:
    make_folder(tmp_path / "old")
    in_child(lambda: grow(tmp_path / "old", tmp_path / "new"), "shards.after_journal:kill@2")
    with pytest.raises(RecipeError, match="another command"):
        grow(tmp_path / "old", tmp_path / "new", {"operator": "clone", "noise": 0.3})
    os.utime(tmp_path / "old" / "model.safetensors", (1, 1))
    with pytest.raises(RecipeError, match="another command"):
        grow(tmp_path / "old", tmp_path / "new")


MASKED: list[tuple[dict[str, Any], dict[str, int], str]] = [
    ({"operator": "masked"}, {"d_ff": 30}, "behind a mask (ffn)"),
    ({"operator": "clone", "depth": "masked"}, {"n_layers": 3}, "behind a mask (layers)"),
    ({"operator": "clone"}, {"vocab_size": 60}, "ramp_steps=0"),
]


@pytest.mark.parametrize(("settings", "sizes", "what"), MASKED)
def test_masks_have_no_place_in_a_folder(
    settings: dict[str, Any], sizes: dict[str, int], what: str, tmp_path: Path
) -> None:
    make_folder(tmp_path / "old")
    with pytest.raises(GrowthError) as error:
        grow(tmp_path / "old", tmp_path / "new", settings, **sizes)
    assert what in str(error.value)
    grow(tmp_path / "old", tmp_path / "new", settings | {"ramp_steps": 0}, **sizes)


def test_multipliers_that_16_bit_would_round_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "old", dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"not exact in torch\.bfloat16") as error:
        grow(tmp_path / "old", tmp_path / "new", d_model=48)
    assert "growlm export --as llama" in error.value.fix


UNSAYABLE: list[tuple[str, dict[str, Any], str, str]] = [
    ("llama", {"d_model": 17}, "4 heads do not divide a width of 17", "--as mistral"),
    ("gpt2", {"head_dim": 8}, "it has no way to say head_dim = 8", "--as growlm"),
]


@pytest.mark.parametrize(("dialect", "sizes", "why", "other"), UNSAYABLE)
def test_a_shape_that_the_dialect_cannot_say_is_refused_with_a_way_out(
    dialect: str, sizes: dict[str, int], why: str, other: str, tmp_path: Path
) -> None:
    make_folder(tmp_path / "old", dialect)
    with pytest.raises(CheckpointError) as error:
        grow(tmp_path / "old", tmp_path / "new", {"operator": "zero"}, **sizes)
    assert why in error.value.why
    assert error.value.where == str(tmp_path / "old")
    assert "growlm import" in error.value.fix
    assert other in error.value.fix
    assert not (tmp_path / "new").exists()


def test_what_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "old")
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "grow_rows", lambda *args: grow_rows(*args) * 1.01)
        with pytest.raises(GrowthError, match="declared exact"):
            grow(tmp_path / "old", tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "free_bytes", lambda _: 10_000)
        with pytest.raises(DiskError, match="Not enough space"):
            grow(tmp_path / "old", tmp_path / "new")
    edit_tensors(tmp_path / "old", lambda t: t["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds values"):
        grow(tmp_path / "old", tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"old"}
