"""`growlm grow --fuse`: folders and checkpoints laid beside each other, grown on, certified, trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from growlm.convert.folder import FolderWeights
from growlm.errors import CheckpointError, GrowthError, RecipeError
from growlm.growth.fusion import FusedWeights
from growlm.growth.weights import MemoryWeights, Weights
from growlm.model.decoder import Decoder
from growlm.train.offline import grow_offline, plans_of
from growlm.train.restore import find_checkpoint
from growlm.train.state import OPTIMIZER_FILE, load_model
from growlm.train.supervisor import run
from tests.checkpoint.helpers import in_child
from tests.convert.foreign import CASES, tokens
from tests.train.conftest import MakeRecipe
from tests.train.helpers import ONE_STAGE, straight_run


def fuse(source: Path, other: Path, out: Path, to: str = "", **settings: Any) -> dict[str, Any]:
    flags: Any = {"data": None, "seed": 1, "certificate": "auto", "shard_bytes": 10_000}
    return grow_offline(source, to, settings, out, fuse=[other], **flags)


@pytest.fixture(scope="module")
def runs(recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of one recipe with different seeds."""
    folders = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    for seed, folder in enumerate(folders):
        straight_run(recipe(*ONE_STAGE, f"seed={seed}"), folder)
    return folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two Llama folders with different weights."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    model = CASES[1].build()
    model.save_pretrained(first)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.9).add_(0.05 * torch.randn_like(p))
    model.save_pretrained(second)
    return first, second


def decoder_of_weights(weights: Weights) -> Decoder:
    model = Decoder(weights.config)
    model.load_state_dict({name: weights.read(name) for name in model.state_dict()})
    return model


def test_runs_fuse_into_a_checkpoint_without_optimizer_state(runs: tuple[Path, Path], tmp_path: Path) -> None:
    entry = fuse(*runs, tmp_path / "fused")
    grown = find_checkpoint(tmp_path / "fused")
    parents = [load_model(find_checkpoint(folder)) for folder in runs]
    fused = FusedWeights([MemoryWeights(parent.config, parent.state_dict()) for parent in parents])
    assert entry["to"] == grown.manifest.model == fused.config.to_dict()
    assert all(torch.equal(t, fused.read(name)) for name, t in load_model(grown).state_dict().items())
    assert OPTIMIZER_FILE not in grown.manifest.files
    fusion = entry["certificate"]["fusion"]
    assert len(fusion["loss_parents"]) == 2
    assert abs(fusion["loss_fused"] - fusion["loss_mean"]) < 0.1


def test_a_folder_stays_a_folder_that_transformers_loads(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out, x = tmp_path / "fused", tokens()
    entry = fuse(*folders, out, "depth=2x", operator="clone", depth="zero_block")
    assert entry["certificate"]["exact"]
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (64, 6)
    with FolderWeights(folders[0]) as first, FolderWeights(folders[1]) as second, torch.no_grad():
        expected = decoder_of_weights(FusedWeights([first, second])).logits(x)
        assert (model(x).logits - expected).abs().max() < 1e-4
    same = fuse(folders[0], folders[0], tmp_path / "same")
    assert same["certificate"]["fusion"]["max_dlogit"] < 1e-4


def test_a_run_and_a_folder_do_not_fit(
    runs: tuple[Path, Path], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(GrowthError, match="the models to fuse differ in"):
        fuse(runs[0], folders[0], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_other_tokenizers_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("growlm.train.offline._tokenizer_hash", str)
    with pytest.raises(CheckpointError, match="different tokenizers"):
        fuse(*folders, tmp_path / "out")


def test_a_ramp_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    masked = tmp_path / "masked"
    flags: Any = {"data": None, "seed": 1, "certificate": "auto", "shard_bytes": 10**9}
    grow_offline(runs[0], "d_model=24", {"operator": "masked"}, masked, **flags)
    with pytest.raises(GrowthError, match="inside a mask ramp"):
        fuse(runs[0], masked, tmp_path / "out")
    with pytest.raises(RecipeError, match="not a new size"):
        grow_offline(runs[0], "", {}, tmp_path / "out", **flags)
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        fuse(runs[0], tmp_path, tmp_path / "out")


def test_a_kill_costs_a_shard_and_other_parents_are_another_plan(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    fuse(*folders, straight)
    assert in_child(lambda: fuse(*folders, resumed), "shards.after_journal:kill@2") == -9
    with pytest.raises(RecipeError, match="unfinished folder of another command"):
        fuse(folders[0], folders[0], resumed)
    fuse(*folders, resumed)
    for file in straight.glob("*.safetensors"):
        assert file.read_bytes() == (resumed / file.name).read_bytes()


def test_the_dry_run_knows_the_fused_shape(runs: tuple[Path, Path]) -> None:
    ((growth, dtype, has_state),) = plans_of(runs[0], "d_ff=2x", {"operator": "clone"}, 1, [runs[1]])
    assert (growth.old.d_model, growth.new.d_ff) == (32, 128)
    assert (dtype, has_state) == (torch.float32, False)


def test_a_fused_model_trains_on(runs: tuple[Path, Path], recipe: MakeRecipe, tmp_path: Path) -> None:
    fuse(*runs, tmp_path / "fused")
    stage = (
        "stages=[{name = 'fused', d_model = 32, n_heads = 4, d_ff = 64, n_layers = 1, tokens = 512,"
        " seq_len = 16, batch_size = 8}]"
    )
    outcome = run(recipe(stage, f"init={tmp_path / 'fused'}"), tmp_path / "run")
    assert outcome.step == 4
