"""GrowLM's own class under transformers: the same numbers as the decoder, and everything a user calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache

import growlm.hf
from growlm.convert.dialects import GROWLM
from growlm.data.tokenizer import Tokenizer
from growlm.train.exchange import export_checkpoint
from tests.convert.checkpoints import TEXTS, random_decoder, save, small

MODELS = {
    "flm": small("flm", logit_mult=0.3, input_mult=2.5),
    "grown": small("llama", tied=False, attn_mult=1.2, rotary=(0.0, 0.25, 0.5, 0.55), norm_eps=3e-5),
    "gpt2": small("gpt2", max_positions=64, input_mult=1.5),
}


@pytest.fixture(params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    decoder = random_decoder(MODELS[request.param])
    save(decoder, tmp_path / "run")
    written = export_checkpoint(
        tmp_path / "run", tmp_path / "hf", dialect="growlm", dtype="fp32", shard_bytes=20_000, data=None
    )
    assert written.name == "growlm"
    return decoder, tmp_path / "hf"


def test_it_loads_generates_and_saves(exported: tuple[Any, Path], tmp_path: Path) -> None:
    decoder, folder = exported
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert model.__class__ is growlm.hf.GrowLMForCausalLM
    x = torch.randint(0, 288, (2, 11))
    with torch.no_grad():
        assert torch.equal(model(x).logits, decoder.logits(x))
        expected = decoder.loss(x[:, :-1], x[:, 1:])
        assert torch.allclose(model(x, labels=x).loss, expected, rtol=1e-5)
        greedy = x
        for _ in range(5):
            greedy = torch.cat([greedy, decoder.logits(greedy)[:, -1:].argmax(-1)], 1)
    assert torch.equal(model.generate(x, max_new_tokens=5, do_sample=False), greedy)
    model.save_pretrained(tmp_path / "again")
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert again.config.shape == decoder.config
    assert torch.equal(again(x).logits, model(x).logits)


def test_a_new_one_starts_as_a_run_does() -> None:
    model: Any = AutoModelForCausalLM.from_config(
        growlm.hf.GrowLMConfig(**GROWLM.write_config(MODELS["flm"]))
    )
    fresh = type(model.decoder)(MODELS["flm"]).init_weights(0)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(model.decoder.state_dict()[name], tensor), name


def greedy(decoder: Any, ids: Tensor, count: int) -> Tensor:
    """Ids (1, T) with what the decoder goes on with, by full passes."""
    for _ in range(count):
        ids = torch.cat([ids, decoder.logits(ids)[:, -1:].argmax(-1)], 1)
    return ids


def logits_in_parts(model: Any, x: Tensor, parts: list[int]) -> Tensor:
    """Logits of x, read piece by piece behind a cache."""
    found, cache = [], DynamicCache(config=model.config)
    for piece in x.split(parts, dim=1):
        found.append(model(piece, past_key_values=cache, use_cache=True).logits)
    return torch.cat(found, 1)


@torch.no_grad()
def test_generating_behind_a_cache_is_generating_without(exported: tuple[Any, Path]) -> None:
    decoder, folder = exported
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    decoder = decoder.double()
    x = torch.randint(0, 288, (3, 9))
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    cached = model.generate(x, **options)
    assert torch.equal(cached, model.generate(x, **options, use_cache=False))
    assert torch.equal(cached, torch.cat([greedy(decoder, row[None], 12) for row in x]))
    assert torch.allclose(logits_in_parts(model, x, [4, 1, 1, 3]), decoder.logits(x), atol=1e-9)
    last = model(x, logits_to_keep=2)
    assert torch.allclose(last.logits, decoder.logits(x)[:, -2:], atol=1e-9)
    assert last.past_key_values is None
    beams = model.generate(x, **options, num_beams=3)
    assert torch.equal(beams, model.generate(x, **options, num_beams=3, use_cache=False))


@torch.no_grad()
def test_padding_before_and_behind_a_text_changes_nothing(exported: tuple[Any, Path]) -> None:
    decoder, folder = exported
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    texts = [torch.randint(0, 288, (1, n)) for n in (4, 9, 7)]
    x, mask = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
    for i, text in enumerate(texts):
        x[i, 9 - text.shape[1] :], mask[i, 9 - text.shape[1] :] = text, 1
    logits = model(x, attention_mask=mask).logits
    assert torch.isfinite(logits).all()
    found = model.generate(x, attention_mask=mask, max_new_tokens=8, do_sample=False)
    for i, text in enumerate(texts):
        expected = decoder.double().logits(text)
        assert torch.allclose(logits[i, -text.shape[1] :], expected[0], atol=1e-9)
        assert torch.equal(found[i, 9 - text.shape[1] :], greedy(decoder, text, 8)[0])
    behind = model(x.flip(1), attention_mask=mask.flip(1)).logits
    assert torch.allclose(behind[0, :4], decoder.logits(x.flip(1)[:1, :4])[0], atol=1e-9)


@torch.no_grad()
def test_a_text_outgrows_the_room_it_began_with(
    exported: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growlm.hf, "_POSITIONS", 4)
    decoder, folder = exported
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    x = torch.randint(0, 288, (2, 21))
    assert torch.allclose(
        logits_in_parts(model, x, [3, 1, 1, 4, 1, 9, 2]), decoder.double().logits(x), atol=1e-9
    )


def test_a_cache_of_another_kind_is_refused(exported: tuple[Any, Path]) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(exported[1])
    with pytest.raises(ValueError, match="DynamicCache"):
        model.generate(torch.zeros(1, 3, dtype=torch.long), max_new_tokens=2, cache_implementation="static")


def test_the_auto_class_knows_the_config(exported: tuple[Any, Path]) -> None:
    config: Any = AutoConfig.from_pretrained(exported[1])
    assert config.shape == exported[0].config
    assert config.num_hidden_layers == 2


def test_the_auto_tokenizer_is_the_runs(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(TEXTS, 288)
    run = tmp_path / "run"
    save(random_decoder(MODELS["flm"]), run, tokenizer)
    settings: dict[str, Any] = {"dtype": "fp32", "shard_bytes": 1 << 30, "data": run / "data"}
    assert export_checkpoint(run, tmp_path / "hf", dialect=None, **settings).name == "growlm"
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert theirs(TEXTS[1]).input_ids == tokenizer.encode(TEXTS[1])
    assert theirs.decode(tokenizer.encode(TEXTS[1])) == TEXTS[1]


def test_without_transformers_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None\n"
    code += "try: import growlm.hf\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "growlm.hf needs transformers 5: pip install 'growlm[hf]'"


def test_nothing_else_imports_transformers() -> None:
    code = (
        "import sys, growlm, growlm.cli.main, growlm.train.exchange, growlm.train.offline\n"
        "assert 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
