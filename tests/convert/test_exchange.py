"""Import and export: the same tensors and the same function on both sides, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from growlm.convert.folder import FolderWeights
from growlm.data.tokenizer import EOS, Tokenizer
from growlm.errors import CheckpointError, RecipeError
from growlm.recipe.load import load_recipe
from growlm.recipe.shape import ModelConfig
from growlm.train.exchange import export_checkpoint, import_folder
from growlm.train.restore import find_checkpoint
from growlm.train.state import load_model
from tests.convert.checkpoints import TEXTS, random_decoder, save, small
from tests.convert.foreign import CASES, Case, tokens

NATIVE = {
    "llama": small("llama", tied=False, norm_eps=1e-4, max_positions=64),
    "llama3-rope": small("llama", rope_scaling=(8.0, 1.0, 4.0, 16), rope_theta=5e4),
    "qwen2": small("qwen2"),
    "qwen3": small("qwen3", head_dim=12, tied=False),
    "gpt2": small("gpt2", max_positions=32),
    "neox": small("neox", tied=False, rotary_share=0.25),
    "opt": small("opt", max_positions=32),
    "mup-tied": small("llama", input_mult=3.0, logit_mult=0.3, attn_mult=0.7),
    "mup-untied": small("qwen2", tied=False, input_mult=3.0, logit_mult=0.3),
    "mup-norms": small("qwen3", attn_mult=0.7, logit_mult=2.0),
    "completep": small("llama", mup_base_d_model=16, mup_base_n_layers=6, logit_mult=0.5),
    "completep-biased": small("neox", tied=False, rotary_share=0.25, mup_base_d_model=8, mup_base_n_layers=1),
    "mup-biased": small("gpt2", max_positions=32, logit_mult=0.3),
}


def export(run: Path, out: Path, **changes: Any) -> Any:
    settings = {"dialect": None, "dtype": "fp32", "shard_bytes": 20_000, "data": None}
    return export_checkpoint(run, out, **settings | changes)


@pytest.mark.parametrize("name", NATIVE)
def test_exported_models_are_the_same_under_transformers(name: str, tmp_path: Path) -> None:
    ours = random_decoder(NATIVE[name])
    save(ours, tmp_path / "run")
    assert export(tmp_path / "run", tmp_path / "hf").native
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    x = tokens(288)
    with torch.no_grad():
        assert (theirs(x).logits - ours.logits(x)).abs().max() < 1e-4
    assert theirs.generate(x[:, :4], max_new_tokens=4, do_sample=False).shape == (2, 8)
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 1


def test_mistral_takes_a_width_that_its_heads_do_not_divide(tmp_path: Path) -> None:
    ours = random_decoder(small("llama", n_heads=6, max_positions=64))
    save(ours, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "hf", dialect="mistral")
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    x = tokens(288)
    with torch.no_grad():
        assert (theirs(x).logits - ours.logits(x)).abs().max() < 1e-4


@pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])
def test_a_folder_comes_back_bit_for_bit(case: Case, tmp_path: Path) -> None:
    source = tmp_path / "source"
    case.build().save_pretrained(source)
    import_folder(source, tmp_path / "ours")
    dialect = "mistral" if case.cls == "Mistral" else None
    export(tmp_path / "ours", tmp_path / "back", dialect=dialect, shard_bytes=1 << 30)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        skipped = 2 if name.endswith("embed_positions.weight") else 0  # OPT's rows for padding
        assert torch.equal(tensor[skipped:], after[name][skipped:]), name
    with FolderWeights(source) as old, FolderWeights(tmp_path / "back") as new:
        assert new.config == old.config


def test_an_import_is_a_checkpoint_with_a_recipe_that_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    CASES[1].build().bfloat16().save_pretrained(source)
    tokenizer = Tokenizer.train(TEXTS, 300)
    vocabulary = json.loads((source / "config.json").read_text())["vocab_size"]
    assert tokenizer.vocab_size > vocabulary
    tokenizer.save(source / "tokenizer.json")
    with pytest.raises(CheckpointError, match="larger than the model's vocabulary"):
        import_folder(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()

    (source / "tokenizer.json").unlink()
    path = import_folder(source, tmp_path / "ours")
    checkpoint = find_checkpoint(tmp_path / "ours")
    assert checkpoint.path == path
    with FolderWeights(source) as weights:
        for name, tensor in load_model(checkpoint).state_dict().items():
            assert torch.equal(tensor, weights.read(name).float()), name
    recipe = load_recipe(tmp_path / "ours" / "recipe.toml")
    assert recipe.init == str(tmp_path / "ours")
    assert recipe.model_config_of(0).n_kv_heads == 2


def test_a_runs_tokenizer_and_card_go_along(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(TEXTS, 288)
    ours = random_decoder(NATIVE["llama"])
    entry = {
        "step": 5, "from": NATIVE["llama"].with_(d_model=16).to_dict(), "to": NATIVE["llama"].to_dict(),
        "operator": "clone", "depth": "stack",
        "certificate": {"exact": True, "kind": "full", "precision": "fp32", "max_dlogit": 1e-6, "dloss": 2e-7}
    }  # fmt: skip
    save(ours, tmp_path / "run", tokenizer, lineage=[entry])
    with pytest.raises(CheckpointError, match="tokenizer of this checkpoint was not found"):
        export(tmp_path / "run", tmp_path / "hf")
    export(tmp_path / "run", tmp_path / "hf", data=tmp_path / "run" / "data")
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert theirs(TEXTS[0]).input_ids == tokenizer.encode(TEXTS[0])
    assert (theirs.eos_token, theirs.eos_token_id) == (EOS, tokenizer.eos_id)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "| 5 | 2 x 16 | 2 x 32 | clone | stack | exact, full, fp32 | 1e-06 | 2e-07 |" in card
    assert "AutoModelForCausalLM" in card
    code = card.split("```python\n")[1].split("```")[0].replace('"hf"', repr(str(tmp_path / "hf")))
    compile(code, "card", "exec")


def test_bf16_halves_the_bytes_and_rounds_once(tmp_path: Path) -> None:
    ours = random_decoder(NATIVE["llama"].with_(input_mult=2.0, logit_mult=0.5))
    save(ours, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "hf", dtype="bf16", shard_bytes=1 << 30)
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    assert torch.equal(stored["model.embed_tokens.weight"], (2 * ours.embedding.weight).bfloat16())
    assert torch.equal(stored["model.norm.weight"], (0.5 * ours.norm.weight).bfloat16())
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert theirs.dtype == torch.bfloat16


REFUSED: dict[str, tuple[ModelConfig, dict[str, Any], str]] = {
    "inexact factor": (NATIVE["mup-tied"], {"dtype": "bf16"}, "is not exact in torch.bfloat16"),
    "frequencies": (
        NATIVE["llama"].with_(rotary=(0.0, 0.2, 0.4, 0.6)),
        {},
        "has no way to say rotary = [0.0, 0.2, 0.4, 0.6]",
    ),
    "other family": (NATIVE["qwen2"], {"dialect": "llama"}, "its models are of family llama"),
    "no native class": (
        small("flm"),
        {"dialect": "llama"},
        "its models are of family llama",
    ),
    "odd heads": (NATIVE["llama"].with_(n_heads=6), {}, "6 heads do not divide a width of 32"),
    "grouped": (NATIVE["neox"].with_(n_kv_heads=2), {}, "no way to say n_kv_heads = 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_dialect_cannot_say_is_refused(name: str, tmp_path: Path) -> None:
    config, settings, why = REFUSED[name]
    save(random_decoder(config), tmp_path / "run")
    with pytest.raises(CheckpointError) as caught:
        export(tmp_path / "run", tmp_path / "hf", **settings)
    assert why in str(caught.value)
    assert "--as growlm" in caught.value.fix
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert export(tmp_path / "run", tmp_path / "hf", dialect="growlm").name == "growlm"


def test_other_refusals(tmp_path: Path) -> None:
    save(random_decoder(NATIVE["llama"]), tmp_path / "run", mask=0.5)
    with pytest.raises(CheckpointError, match="inside a mask ramp"):
        export(tmp_path / "run", tmp_path / "hf")
    save(random_decoder(NATIVE["llama"]), tmp_path / "whole")
    with pytest.raises(RecipeError, match="there is no dialect 'lama'"):
        export(tmp_path / "whole", tmp_path / "hf", dialect="lama")
    with pytest.raises(RecipeError, match="not an empty folder"):
        export(tmp_path / "whole", tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"config.json cannot be read"):
        import_folder(tmp_path / "nothing", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
