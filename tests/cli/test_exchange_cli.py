"""`growlm export` and `growlm import` as a user runs them, from a run that was trained."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from growlm.data.dataset import TokenDataset
from growlm.data.prepare import prepare
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.restore import find_checkpoint, find_tokenizer
from growlm.train.state import load_model
from tests.cli.run_cli import growlm


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `tiny.toml` and `run`, trained through its three growths."""
    folder = tmp_path_factory.mktemp("trained")
    prepare(folder / "data", write_corpus(folder / "text"), vocab_size=VOCABULARY, validation_share=0.1)
    recipe = write_recipe(folder / "tiny.toml", folder / "data")
    assert growlm("train", recipe, "--run", folder / "run").code == 0
    return folder


def test_a_run_goes_out_and_comes_back(trained: Path, tmp_path: Path) -> None:
    done = growlm("export", trained / "run", tmp_path / "hf", "--shard-size", "20KB")
    assert (done.code, done.out) == (0, f"{tmp_path / 'hf'}: a llama model\n"), done.err
    checkpoint = find_checkpoint(trained / "run")
    ours, tokenizer = load_model(checkpoint), find_tokenizer(checkpoint, None)
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    their_tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "hf")
    inputs = their_tokenizer("The river", return_tensors="pt")
    assert inputs.input_ids[0].tolist() == tokenizer.encode("The river")
    with torch.no_grad():
        assert (theirs(**inputs).logits - ours.logits(inputs.input_ids)).abs().max() < 1e-4
    assert theirs.generate(**inputs, max_new_tokens=3).shape[1] <= inputs.input_ids.shape[1] + 3
    assert theirs.config.eos_token_id == tokenizer.eos_id
    card, data = (tmp_path / "hf" / "README.md").read_text().split("\n## Data\n")
    growths = [line for line in card.splitlines() if "exact" in line]
    assert len(growths) == len(checkpoint.manifest.lineage) == 3
    dataset = TokenDataset.open(trained / "data")
    for source in dataset.sources:
        assert f"| {dataset.tokens(source, 'train'):,} |" in data
    assert dataset.fingerprint in data
    assert "### Mixture" in data

    done = growlm("import", tmp_path / "hf", tmp_path / "ours")
    assert done.code == 0, done.err
    again = load_model(find_checkpoint(tmp_path / "ours"))
    with torch.no_grad():  # the logit multiplier of the grown model is in the final norm now
        assert again.config.logit_mult == 1.0
        x = inputs.input_ids
        assert (again.logits(x) - ours.logits(x)).abs().max() < 1e-4
    sampled = growlm("sample", tmp_path / "ours", "--prompt", "The river", "--tokens", 3)
    assert sampled.code == 0, sampled.err


def test_an_import_trains_on(trained: Path, tmp_path: Path) -> None:
    assert growlm("export", trained / "run", tmp_path / "hf").code == 0
    assert growlm("import", tmp_path / "hf", tmp_path / "ours").code == 0
    recipe = tmp_path / "ours" / "recipe.toml"
    assert tomllib.loads(recipe.read_text())["init"] == str(tmp_path / "ours")
    settings = [
        f"data.path='{trained / 'data'}'",
        "data.mixture={en = 1.0, zh = 1.0}",
        "stages.continue.tokens=1024",
        "stages.continue.seq_len=16",
        "schedule.warmup_steps=1",
        "train.device='cpu'",
    ]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    done = growlm("train", recipe, "--run", tmp_path / "run", *flags)
    assert done.code == 0, done.err
    assert find_checkpoint(tmp_path / "run").manifest.step == 8


def test_failures_are_one_message(trained: Path, tmp_path: Path) -> None:
    done = growlm("export", trained / "run", tmp_path / "hf", "--as", "opt")
    assert done.code == 65
    assert "a model of family llama cannot be written as opt" in done.err
    assert "--as growlm" in done.err
    done = growlm("export", trained / "run", tmp_path / "hf", "--shard-size", "big")
    assert done.code == 2
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text(
        json.dumps(
            {"model_type": "opt", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
            | {"ffn_dim": 8, "vocab_size": 8, "max_position_embeddings": 8}
        )
    )
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    done = growlm("import", pickled, tmp_path / "ours")
    assert done.code == 65
    assert "pickled" in done.err
    assert not (tmp_path / "ours").exists()
    assert not (tmp_path / "hf").exists()


def test_code_in_a_folder_is_not_run_and_that_is_said(trained: Path, tmp_path: Path) -> None:
    assert growlm("export", trained / "run", tmp_path / "hf").code == 0
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}))
    (tmp_path / "hf" / "evil.py").write_text("raise SystemExit(99)")
    done = growlm("import", tmp_path / "hf", tmp_path / "ours")
    assert done.code == 0
    assert "the code that auto_map names was not run" in done.out
