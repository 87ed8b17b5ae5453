"""What somebody does with an export who has never seen GrowLM: pipeline, generate, save and load, serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, pipeline

import growlm.hf  # noqa: F401  (registers the class of the last model)
from growlm.convert.dialects import DIALECTS, dialect_of
from growlm.convert.folder import FolderWeights
from growlm.data.tokenizer import Tokenizer
from growlm.inference.chat import go_on
from growlm.inference.generate import Draw
from growlm.inference.source import open_local
from growlm.recipe.shape import ModelConfig
from growlm.train.exchange import export_checkpoint
from tests.convert.checkpoints import TEXTS, random_decoder, save, small

MUP = {"max_positions": 64, "input_mult": 2.5, "logit_mult": 0.3, "attn_mult": 1.5}
MODELS: dict[str, ModelConfig] = {
    "llama": small("llama", tied=False, **MUP),
    "llama-tied": small("llama", tied=True, **MUP),
    "mistral": small("llama", tied=False, head_dim=12, **MUP),
    "qwen2": small("qwen2", tied=False, **MUP),
    "qwen3-tied": small("qwen3", tied=True, **MUP),
    "gpt2": small("gpt2", **MUP),
    "gpt_neox": small("neox", tied=False, **MUP),
    "opt": small("opt", **MUP),
    "growlm": small("flm", **MUP),
}
PROMPTS = ["The river remembers", "A lantern 河流 crosses the garden in winter."]


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of random weights, and its export for transformers."""
    folder = tmp_path_factory.mktemp(request.param)
    save(random_decoder(MODELS[request.param]), folder / "run", Tokenizer.train(TEXTS, 288))
    export(folder / "run", folder / "hf", request.param.partition("-")[0])
    return folder / "run", folder / "hf"


def export(run: Path, out: Path, dialect: str) -> None:
    settings: dict[str, Any] = {"dtype": "fp32", "shard_bytes": 40_000, "data": run / "data"}
    export_checkpoint(run, out, dialect=dialect, **settings)


def test_a_pipeline_writes_what_growlm_writes(exported: tuple[Path, Path]) -> None:
    run, folder = exported
    ours = open_local(run, context=64, data=run / "data")
    write = pipeline("text-generation", model=str(folder))
    options: dict[str, Any] = {"do_sample": False, "return_full_text": False}
    for prompt in PROMPTS:
        (said,) = write(prompt, generation_config=greedy_of(write.model, max_new_tokens=12), **options)
        assert said["generated_text"] == go_on(ours, prompt, Draw(), tokens=12)


def greedy_of(model: Any, **changes: Any) -> Any:
    """The model's own settings, greedy."""
    settings = model.generation_config
    settings.update(do_sample=False, max_length=None, **changes)
    return settings


@torch.no_grad()
def test_generate_with_a_cache_is_generate_without(exported: tuple[Path, Path]) -> None:
    run, folder = exported
    ours = open_local(run, context=64, data=run / "data")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    settings = greedy_of(model, max_new_tokens=16)
    for prompt in PROMPTS:
        x: Tensor = tokenizer(prompt, return_tensors="pt").input_ids
        assert x[0].tolist() == ours.text.encode(prompt)
        cached = model.generate(x, generation_config=settings, use_cache=True)
        assert torch.equal(cached, model.generate(x, generation_config=settings, use_cache=False))
        tokens = ours.writer().stream(x[0].tolist(), Draw(), max_tokens=16)
        assert cached[0, x.shape[1] :].tolist() == [token.id for token in tokens]


@torch.no_grad()
def test_saved_again_it_is_the_same_to_the_bit(exported: tuple[Path, Path], tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(exported[1])
    tokenizer: Any = AutoTokenizer.from_pretrained(exported[1])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with FolderWeights(exported[1]) as before, FolderWeights(tmp_path) as after:
        assert before.config == after.config
        for name in random_decoder(before.config).state_dict():
            assert torch.equal(before.read(name), after.read(name)), name
    reloaded: Any = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*PROMPTS, "<|endoftext|> 😈 \r\n\t x  y "):
        assert reloaded(text).input_ids == tokenizer(text).input_ids
        assert reloaded.decode(reloaded(text).input_ids) == text


# Keys that the engines read from config.json for the class TeleFLMForCausalLM, beside those of Llama:
# vllm/model_executor/models/teleflm.py of vLLM 0.33.0, python/sglang/srt/models/teleflm.py of SGLang 0.5.23.
VLLM_KEYS = {"use_mup", "output_mult", "mup_scale_factor"}
SGLANG_KEYS = {"use_mup", "input_mult", "output_mult", "mup_scale_factor"}


def engine_logits(folder: Path, x: Tensor, keys: set[str]) -> Tensor:
    """What an engine computes that is Llama with these keys: embedding times input_mult, logits times
    output_mult / mup_scale_factor. The config goes through transformers as the engines load it."""
    said = json.loads((folder / "config.json").read_text())
    assert said["architectures"] == ["TeleFLMForCausalLM"]
    config: Any = LlamaConfig.from_dict(said | {"model_type": "llama"})
    assert config.use_mup is True
    llama: Any = LlamaForCausalLM.from_pretrained(folder, config=config)
    embedded = llama.get_input_embeddings()(x)
    if "input_mult" in keys:
        embedded = embedded * config.input_mult
    return llama(inputs_embeds=embedded).logits * (config.output_mult / config.mup_scale_factor)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_engines_for_teleflm_find_their_keys(tied: bool, tmp_path: Path) -> None:
    x = torch.randint(0, 288, (2, 20))
    for input_mult in (1.0, 2.5):
        config = small("llama", tied=tied, **MUP | {"input_mult": input_mult}, mup_base_d_model=8)
        decoder, folder = random_decoder(config), tmp_path / f"hf{input_mult}"
        save(decoder, tmp_path / f"run{input_mult}", Tokenizer.train(TEXTS, 288))
        export(tmp_path / f"run{input_mult}", folder, "teleflm")
        said = json.loads((folder / "config.json").read_text())
        assert said.keys() >= VLLM_KEYS | SGLANG_KEYS
        assert said["mup_scale_factor"] == 4.0  # 32 / 8
        expected = decoder.logits(x)
        bound = 1e-4 * expected.abs().max()
        assert (engine_logits(folder, x, SGLANG_KEYS) - expected).abs().max() < bound
        wrong = (engine_logits(folder, x, VLLM_KEYS) - expected).abs().max() > bound
        assert wrong == (input_mult != 1.0)  # why docs/serving.md sends vLLM another export


def test_a_config_made_for_an_engine_is_still_read_with_its_multipliers() -> None:
    written = DIALECTS["teleflm"].write_config(MODELS["llama"])
    for_engine = json.loads(json.dumps(written | {"model_type": "llama"}))
    assert dialect_of(for_engine) is DIALECTS["teleflm"]
    assert dialect_of(for_engine).read_config(for_engine).input_mult == 2.5
    assert dialect_of(DIALECTS["llama"].write_config(MODELS["llama"])) is DIALECTS["llama"]
