"""The two released layouts that transformers has no class for, against a forward pass written here.

FLM-101B (2309.03852): Conv1D, xPos, multipliers, a division by the layer's index that is undone again.
Tele-FLM (2404.16645): Llama with an input and an output multiplier.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from growlm.convert.folder import FolderWeights
from growlm.errors import CheckpointError
from growlm.model.decoder import Decoder
from growlm.train.exchange import export_checkpoint, import_folder
from tests.convert.checkpoints import random_decoder, save, small
from tests.convert.foreign import CASES, tokens

D, LAYERS, HEADS, FFN, VOCAB = 32, 3, 4, 64, 96

FLM: dict[str, Any] = {
    "model_type": "flm",
    "auto_map": {"AutoConfig": "configuration_flm.FLMConfig", "AutoModelForCausalLM": "modeling_flm.FLM"},
    "activation_function": "gelu_fast",
    "bos_token_id": 3,
    "eos_token_id": 3,
    "initializer_range": 0.02,
    "input_mult": 1.5,
    "output_mult": 2.0,
    "use_mup": True,
    "mup_base_width": 8,
    "mup_scale_factor": 4.0,
    "layer_norm_epsilon": 1e-5,
    "n_embd": D,
    "n_head": HEADS,
    "n_inner": FFN,
    "n_layer": LAYERS,
    "n_positions": 64,
    "relative_encoding": "rotary",
    "rotary_theta": 10000,
    "rotary_use_xpos": True,
    "rotary_xpos_scale_base": 512,
    "reorder_and_upcast_attn": True,
    "scale_attn_by_inverse_layer_idx": True,
    "scale_attn_weights": True,
    "vocab_size": VOCAB,
}


def flm_tensors() -> dict[str, Tensor]:
    """The tensors of a released file, in fp64, with its mask buffers and without its rotary ones."""
    g = torch.Generator().manual_seed(2)

    def normal(*shape: int, mean: float = 0.0) -> Tensor:
        return mean + 0.3 * torch.randn(*shape, generator=g, dtype=torch.float64)

    out = {"transformer.wte.weight": normal(VOCAB, D)}
    for i in range(LAYERS):
        h = f"transformer.h.{i}."
        out[h + "attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.float16).tril()
        out[h + "attn.masked_bias"] = torch.tensor(-1e4, dtype=torch.float16)
        shapes = {
            "attn.c_attn": (D, 3 * D),
            "attn.c_proj": (D, D),
            "mlp.c_fc": (D, FFN),
            "mlp.c_proj": (FFN, D),
        }
        for name, shape in shapes.items():
            out[f"{h}{name}.weight"], out[f"{h}{name}.bias"] = normal(*shape), normal(shape[1])
        for name in ("ln_1", "ln_2"):
            out[f"{h}{name}.weight"], out[f"{h}{name}.bias"] = normal(D, mean=1.0), normal(D)
    return out | {"transformer.ln_f.weight": normal(D, mean=1.0), "transformer.ln_f.bias": normal(D)}


def flm_logits(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, T, V) as the released code computes them."""
    B, T = x.shape
    E = D // HEADS
    pair = torch.arange(0, E, 2).double()
    angle = torch.outer(torch.arange(T).double(), 10000 ** (-pair / E)).repeat(1, 2)
    power = (torch.arange(T).double() - T // 2) / 512
    scale = (((pair + 0.4 * E) / (1.4 * E)) ** power[:, None]).repeat(1, 2)

    def rotate(y: Tensor) -> Tensor:
        half = torch.cat([-y[..., E // 2 :], y[..., : E // 2]], -1)
        return y * angle.cos() + half * angle.sin()

    def conv(y: Tensor, name: str) -> Tensor:
        return y @ w[name + ".weight"] + w[name + ".bias"]

    def norm(y: Tensor, name: str) -> Tensor:
        return F.layer_norm(y, (D,), w[name + ".weight"], w[name + ".bias"], 1e-5)

    y = w["transformer.wte.weight"][x] * FLM["input_mult"]
    hidden = torch.ones(T, T).triu(1).bool()
    for i in range(LAYERS):
        h, index = f"transformer.h.{i}.", i + 1
        qkv = conv(norm(y, h + "ln_1"), h + "attn.c_attn").view(B, T, 3, HEADS, E).permute(2, 0, 3, 1, 4)
        q, k = rotate(qkv[0]) * scale, rotate(qkv[1]) / scale
        scores = q @ k.transpose(-1, -2) / math.sqrt(E) / index * index
        attended = scores.masked_fill(hidden, -math.inf).softmax(-1) @ qkv[2]
        y = y + conv(attended.transpose(1, 2).reshape(B, T, D), h + "attn.c_proj")
        up = conv(norm(y, h + "ln_2"), h + "mlp.c_fc")
        gelu = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
        y = y + conv(gelu, h + "mlp.c_proj")
    logits = norm(y, "transformer.ln_f") @ w["transformer.wte.weight"].T
    return logits * (FLM["output_mult"] / FLM["mup_scale_factor"])


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def decoder(folder: Path, dtype: torch.dtype) -> Decoder:
    with FolderWeights(folder) as weights:
        model = Decoder(weights.config).to(dtype)
        model.load_state_dict({name: weights.read(name) for name in model.state_dict()})
    return model.eval()


def test_flm_101b(tmp_path: Path) -> None:
    tensors, x = flm_tensors(), tokens(VOCAB)
    folder = write(tmp_path / "flm", FLM, tensors)
    expected = flm_logits(tensors, x)
    model = decoder(folder, torch.float64)
    assert model.config.logit_mult == 0.5
    assert model.config.mup_base_d_model == 8
    with torch.no_grad():
        assert (model.logits(x) - expected).abs().max() < 1e-8
        assert (decoder(folder, torch.float32).logits(x) - expected).abs().max() < 1e-4


def test_flm_101b_comes_back(tmp_path: Path) -> None:
    tensors = {name: t.float() for name, t in flm_tensors().items() if ".attn." not in name or "c_" in name}
    folder = write(tmp_path / "flm", FLM, tensors)
    import_folder(folder, tmp_path / "ours")
    out = tmp_path / "back"
    export_checkpoint(tmp_path / "ours", out, dialect="flm", dtype="fp32", shard_bytes=1 << 30, data=None)
    back = load_file(out / "model.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    said = json.loads((out / "config.json").read_text())
    assert "auto_map" not in said
    del said["architectures"], said["tie_word_embeddings"]
    same = said.keys() & FLM.keys()
    assert {key: said[key] for key in same} == {key: FLM[key] for key in same} | {"bos_token_id": 3}
    assert {"n_embd", "output_mult", "mup_scale_factor", "input_mult", "rotary_use_xpos"} <= same


@pytest.mark.parametrize(
    ("family", "dialect"), [("flm", "flm"), ("llama", "teleflm"), ("flm", "growlm"), ("llama", "growlm")]
)
def test_multipliers_are_stored_where_there_is_a_key_and_folded_where_not(
    family: str, dialect: str, tmp_path: Path
) -> None:
    """Released layouts say muP's multipliers, and nothing of branches; what is read is the same function."""
    heads = {"n_kv_heads": 4} if family == "flm" else {}
    scaled = {"mup_base_d_model": 8, "mup_base_n_layers": 1, "logit_mult": 0.5, "input_mult": 1.5}
    ours = random_decoder(small(family, max_positions=64, **heads, **scaled))
    assert ours.config.residual_mult == 0.5
    save(ours, tmp_path / "run")
    out, settings = tmp_path / "out", {"dtype": "fp32", "shard_bytes": 1 << 30, "data": None}
    export_checkpoint(tmp_path / "run", out, dialect=dialect, **settings)
    said, x = json.loads((out / "config.json").read_text()), tokens(288)
    if dialect != "growlm":
        assert (said["input_mult"], said["output_mult"] / said["mup_scale_factor"]) == (1.5, 0.5)
        assert said["mup_scale_factor"] == 4.0
    back = decoder(out, torch.float32)
    assert back.config.mup_base_d_model == 8
    with torch.no_grad():
        torch.testing.assert_close(back.logits(x), ours.logits(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", ["rotary_use_xpos", "relative_encoding", "activation_function"])
def test_another_forward_pass_is_refused(key: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "flm", FLM | {key: "none"}, flm_tensors())
    with pytest.raises(CheckpointError) as caught:
        FolderWeights(folder)
    assert caught.value.where == f"{folder / 'config.json'}: {key}"


def test_tele_flm_is_llama_with_two_multipliers(tmp_path: Path) -> None:
    theirs: Any = CASES[0].build()
    theirs.save_pretrained(tmp_path / "tele")
    path = tmp_path / "tele" / "config.json"
    more = {
        "model_type": "TeleFLM",
        "use_mup": True,
        "input_mult": 2.5,
        "output_mult": 3.0,
        "mup_scale_factor": 8.0,
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    x = tokens()
    with torch.no_grad():
        hidden = theirs.model(inputs_embeds=theirs.model.embed_tokens(x) * 2.5).last_hidden_state
        expected = theirs.lm_head(hidden) * (3.0 / 8.0)
        assert (decoder(tmp_path / "tele", torch.float32).logits(x) - expected).abs().max() < 1e-4
    import_folder(tmp_path / "tele", tmp_path / "ours")
    settings: dict[str, Any] = {"dtype": "fp32", "shard_bytes": 1 << 30, "data": None}
    export_checkpoint(tmp_path / "ours", tmp_path / "back", dialect="teleflm", **settings)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("tele", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    said = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: said[key] for key in more} == more
    export_checkpoint(tmp_path / "ours", tmp_path / "llama", dialect=None, **settings)
    native: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    with torch.no_grad():
        assert (native(x).logits - expected).abs().max() < 1e-4
