"""What a user can name is opened as the same model, whatever reads it and however many processes it has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.convert.companions import companions_for
from growlm.convert.dialects import DIALECTS
from growlm.convert.write import write_folder
from growlm.errors import CheckpointError, GrowLMError, RecipeError
from growlm.growth.weights import MemoryWeights
from growlm.inference.asking import SPARE, SWALLOWED
from growlm.inference.facts import facts, stages_of
from growlm.inference.foreign import Foreign, load_foreign
from growlm.inference.packed import PackedAttention, pack
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt
from growlm.inference.source import open_local, open_model
from growlm.inference.workers import Workers
from growlm.model.reading import KeyValues, behind
from growlm.plan.flops import flops_per_token
from growlm.train.exchange import import_folder
from tests.inference.models import FAMILIES, model, tokenizer
from tests.model.tiny import config, decoder, trained
from tests.train.conftest import data, recipe  # noqa: F401
from tests.train.helpers import straight_run

CHOICES = [Choice("the cat", f" {end}") for end in ("sat", "ran to the hat", "s")] + [Choice("", "a ☃")]
CHOICES += [Choice("the dog ran " * 30, "to the hat"), Choice("a", " the hat" * 60), Choice("a", "")]
CHOICES += [Choice("the c", "at")]  # which become two tokens together: none is the continuation's own
PROMPTS = [Prompt("the cat sat", 9), Prompt("", 5, temperature=1.5, seed=3), Prompt("the " * 90, 4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small llama with more rows than its tokenizer has ids, as a Hugging Face folder."""
    path = tmp_path_factory.mktemp("folder") / "tiny"
    c = config("llama", vocab_size=tokenizer().vocab_size + 7, max_positions=48)
    write_folder(
        MemoryWeights(c, {name: tensor.float() for name, tensor in trained(c).items()}),
        DIALECTS["llama"],
        path,
        dtype=torch.float32,
        shard_bytes=1 << 30,
        source={},
        keys={"torch_dtype": "float32"},
        files=companions_for(tokenizer(), 48),
    )
    return path


def answers(model: Any) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    rolled = dict(model.rolling(["the cat sat on " * 20, ""]))
    return dict(model.likelihoods(CHOICES)), dict(model.completions(PROMPTS)), rolled


def check_same(one: Any, other: Any) -> None:
    for mine, theirs in zip(answers(one), answers(other), strict=True):
        assert mine.keys() == theirs.keys()
        for i, answer in mine.items():
            if isinstance(answer, Likelihood):
                assert answer.logprob == pytest.approx(theirs[i].logprob, abs=1e-4)
                assert (answer.greedy, answer.tokens, answer.cut) == (
                    theirs[i].greedy, theirs[i].tokens, theirs[i].cut
                )  # fmt: skip
            else:
                assert answer == theirs[i]


def test_transformers_and_two_processes_answer_the_same(folder: Path) -> None:
    ours = open_local(folder, device="cpu")
    theirs, text, context = load_foreign(folder, torch.float32, torch.device("cpu"))
    assert context == ours.context == 48
    check_same(ours, Foreign(theirs, text, context=context, identity=""))
    both = open_model(folder, device="cpu", workers=2)
    assert isinstance(both, Workers)
    assert (both.identity, both.context) == (ours.identity, 48)
    check_same(ours, both)
    worker: Any = both._workers[1]
    worker._process.kill()
    with pytest.raises(GrowLMError, match="Worker 1 has ended with code -9"):
        list(both.likelihoods(CHOICES))
    both.close()


def test_what_is_too_long_is_said(folder: Path) -> None:
    found, written, _ = answers(open_local(folder, device="cpu"))
    assert [type(found[i]) for i in (4, 5, 6, 7)] == [Likelihood, Failed, Likelihood, Failed]
    ids = len(open_local(folder).text.encode(CHOICES[4].context + CHOICES[4].continuation))
    assert found[4].cut == ids - 49
    assert found[6] == Likelihood(0.0, True, 0)
    assert found[7] == Failed(SWALLOWED)
    assert isinstance(written[2], Completion)
    assert written[2].cut == len(open_local(folder).text.encode(PROMPTS[2].text)) - 44


def test_identities(folder: Path, tmp_path: Path) -> None:
    same = {open_local(folder, device="cpu").identity for _ in range(2)}
    assert len(same) == 1
    others = {
        open_local(folder, device="cpu", context=40).identity,
        open_local(folder, device="cpu", precision="bf16").identity,
    }
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert {open_local(moved, device="cpu").identity} == same
    told = json.loads((moved / "tokenizer_config.json").read_text())
    (moved / "tokenizer_config.json").write_text(json.dumps(told | {"bos_token": "[pad]"}))
    others.add(open_local(moved, device="cpu").identity)
    assert len(others - same) == 3


def test_a_checkpoint_is_its_folder(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "ours")
    check_same(open_local(folder, device="cpu"), open_local(tmp_path / "ours", device="cpu", context=48))


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing here"):
        open_model(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        open_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nobody"}')
    with pytest.raises(CheckpointError, match="transformers cannot load this model"):
        open_model(tmp_path)
    with pytest.raises(GrowLMError, match="nothing here"):
        open_model(tmp_path / "none", workers=2)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", ""])
@pytest.mark.parametrize("workers", [1, 2])
def test_devices_that_are_not_there(folder: Path, device: str, workers: int) -> None:
    with pytest.raises(RecipeError, match=r"is no device|There is no cuda:99"):
        open_model(folder, device=device, workers=workers)


def test_a_prompt_is_cut_for_what_is_expected_only(folder: Path) -> None:
    opened = open_local(folder, context=32)
    long, answer = "the cat sat " * 20, "the hat the hat"
    whole, needed = len(opened.text.encode(long)), len(opened.text.encode(answer)) + SPARE
    prompts = [Prompt(long, 30, expected=answer), Prompt(long, 30), Prompt(long, 4, expected=answer)]
    told = dict(opened.completions([*prompts, Prompt("the cat", 30, expected=answer)]))
    cuts = [one.cut for _, one in sorted(told.items()) if isinstance(one, Completion)]
    assert cuts == [whole - 32 + needed, whole - 32 + 30, whole - 32 + 4, 0]


def test_more_context_than_positions(tmp_path: Path) -> None:
    c = config("gpt2", n_kv_heads=4, vocab_size=tokenizer().vocab_size)
    write_folder(
        MemoryWeights(c, {name: tensor.float() for name, tensor in trained(c).items()}),
        DIALECTS["gpt2"], tmp_path / "gpt2", dtype=torch.float32, shard_bytes=1 << 30, source={},
        keys={}, files=companions_for(tokenizer(), 32),
    )  # fmt: skip
    with pytest.raises(RecipeError, match="has learned 32 positions, not 33"):
        open_local(tmp_path / "gpt2", context=33)


@pytest.mark.parametrize("ramp", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_weights_that_are_laid_out_are_the_same_function(family: str, ramp: bool) -> None:
    tokens = torch.randint(0, 50, (3, 11), generator=torch.Generator().manual_seed(0))
    expected = model(family, ramp=ramp).logits(tokens)
    packed = pack(model(family, ramp=ramp).float())
    assert all(isinstance(block.attn, PackedAttention) for block in packed.blocks)
    assert torch.allclose(packed.logits(tokens).double(), expected, atol=1e-4)
    cache = KeyValues(packed.config, 3, 11, tokens.device, torch.float32)
    for at in range(11):  # token by token
        reading = behind(cache, torch.full((3, 1), at), together=True)
        found = packed.head_logits(packed(tokens[:, at : at + 1], reading=reading))
        assert torch.allclose(found[:, 0].double(), expected[:, at], atol=1e-4)
    c = config(family)
    whole = decoder(c, trained(c)).eval()
    assert torch.equal(pack(whole).logits(tokens), whole.logits(tokens))  # fp64 stays as it is


def test_a_cpu_without_bf16_kernels_reads_bf16() -> None:
    code = """if True:
        import torch
        from growlm.inference.packed import pack
        from tests.model.tiny import config, decoder, trained
        assert not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        model = decoder(config("llama"), trained(config("llama"))).bfloat16().eval().requires_grad_(False)
        pack(model).logits(torch.arange(9)[None])"""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_what_is_known_of_a_run(recipe: Any, tmp_path: Path) -> None:  # noqa: F811
    tiny = recipe()
    straight_run(tiny, tmp_path / "run")
    stages = stages_of(tmp_path / "run")
    names = [stage.name for stage in tiny.stages]
    told = [facts(path) for path in stages]
    assert [fact["stage"] for fact in told] == names[-len(told) :]
    assert [fact["name"] for fact in told] == [f"run/{name}" for name in names]
    tokens, spent = 0, 0.0
    for i, (stage, fact) in enumerate(zip(tiny.stages, told, strict=True)):
        tokens += stage.steps * stage.tokens_per_step
        spent += flops_per_token(tiny.model_config_of(i), stage.seq_len) * stage.steps * stage.tokens_per_step
        assert fact["tokens"] == tokens
        assert fact["zettaflops"] == pytest.approx(spent / 1e21)
    whole = facts(tmp_path / "run")
    assert whole == told[-1] | {"name": "run", "source": str(tmp_path / "run")}
    with pytest.raises(CheckpointError, match="no run folder"):
        stages_of(tmp_path)
    assert facts("http://localhost:1/v1#small")["name"] == "small"
