"""What a config.json may say, what it may not, and other ways in which the same model was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from growlm.convert.config_keys import read_rope
from growlm.convert.dialects import DIALECTS, dialect_of, native_dialect
from growlm.convert.folder import FolderWeights
from growlm.errors import CheckpointError
from growlm.recipe.families import FAMILIES
from growlm.recipe.shape import ModelConfig
from tests.convert.checkpoints import small
from tests.convert.foreign import CASES

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 64,
}


def read(**changes: Any) -> ModelConfig:
    said = {key: value for key, value in (LLAMA | changes).items() if value != "absent"}
    return dialect_of(said).read_config(said)


def test_every_dialect_reads_what_it_writes() -> None:
    for dialect in DIALECTS.values():
        for family in [dialect.family] if dialect.family else FAMILIES:
            config = small(family, max_positions=64, norm_eps=1e-5)
            written = json.loads(json.dumps(dialect.write_config(config)))
            assert dialect_of(written) is dialect
            assert dialect.read_config(written) == config


def test_every_family_but_flm_has_a_native_dialect() -> None:
    native = {family: native_dialect(family) for family in FAMILIES}
    assert [family for family, dialect in native.items() if dialect is None] == ["flm"]
    assert all(dialect is None or dialect.family == family for family, dialect in native.items())


def test_packed_tensors_come_back_from_what_they_were_packed_into() -> None:
    for dialect in DIALECTS.values():
        config = small(dialect.family or "gpt2", max_positions=16)
        for tensor in dialect.tensors(config):
            if tensor.pack and tensor.unpack:
                whole = torch.randn(tensor.shape)
                again = tensor.pack([tensor.unpack(whole, part) for part in tensor.parts])
                rows = slice(2, None) if "embed_positions" in tensor.name else slice(None)
                assert torch.equal(again[rows], whole[rows]), tensor.name


def test_defaults_of_transformers_and_old_spellings() -> None:
    plain = read()
    assert (plain.n_kv_heads, plain.head_dim, plain.tied, plain.norm_eps) == (4, 8, False, 1e-6)
    assert plain.rope_theta == 10000.0
    scaling = {"type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0}
    scaled = read(rope_theta=5e5, rope_scaling=scaling | {"original_max_position_embeddings": 32})
    assert (scaled.rope_theta, scaled.rope_scaling) == (5e5, (4.0, 1.0, 2.0, 32.0))
    assert read(rope_scaling=scaling).rope_scaling == (4.0, 1.0, 2.0, 64.0)
    assert read_rope({"rotary_pct": 0.5, "rotary_emb_base": 7.0}, "rotary_emb_base", "rotary_pct", 0.25) == {
        "rope_theta": 7.0,
        "rotary_share": 0.5,
        "rope_scaling": None,
    }


def test_a_sliding_window_ends_the_context() -> None:
    assert read(model_type="mistral", sliding_window=16).max_positions == 16
    assert read(model_type="mistral", sliding_window=128).max_positions == 64
    assert read(model_type="mistral", sliding_window=None).max_positions == 64
    assert read(model_type="qwen2", sliding_window=16, use_sliding_window=False).max_positions == 64
    assert read(model_type="qwen2", sliding_window=16, use_sliding_window=True).max_positions == 16


REFUSED: dict[str, dict[str, Any]] = {
    "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "hidden_act": {"hidden_act": "gelu"},
    "rope_scaling": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "rope_parameters": {"rope_parameters": [1]},
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    "hidden_size": {"hidden_size": "absent"},
    "vocab_size": {"vocab_size": -1},
    "num_hidden_layers": {"num_hidden_layers": 2.0},
    "num_attention_heads": {"num_attention_heads": 5},
    "num_key_value_heads": {"num_key_value_heads": 3},
    "head_dim": {"head_dim": 7},
    "rms_norm_eps": {"rms_norm_eps": float("inf")},
    "tie_word_embeddings": {"tie_word_embeddings": "yes"},
    "model_type": {"model_type": "mamba"},
    "use_parallel_residual": {"model_type": "gpt_neox", "use_parallel_residual": False},
    "rotary_pct": {"model_type": "gpt_neox", "rotary_pct": 0.3},
    "do_layer_norm_before": {"model_type": "opt", "ffn_dim": 48, "do_layer_norm_before": False},
    "word_embed_proj_dim": {"model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 16},
    "max_position_embeddings": {"model_type": "opt", "ffn_dim": 48, "max_position_embeddings": "absent"},
    "family": {"model_type": "growlm"},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_growlm_does_not_do_is_refused_by_its_key(key: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(**REFUSED[key])
    assert caught.value.where == f"config.json: {key}"
    assert caught.value.why


def test_code_of_a_folder_is_never_run() -> None:
    with pytest.raises(CheckpointError) as caught:
        read(model_type="mamba", auto_map={"AutoModel": "evil.Model"})
    assert "never run" in caught.value.why
    assert "llama" in caught.value.fix
    assert read(auto_map={"AutoModel": "evil.Model"}) == read()


def _rewritten(folder: Path, change: Any) -> dict[str, torch.Tensor]:
    """Every parameter before and after a change of the folder's tensors, which must be none."""
    with FolderWeights(folder) as weights:
        names = [part for tensor in weights.dialect.tensors(weights.config) for part in tensor.parts]
        before = {name: weights.read(name) for name in names}
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with FolderWeights(folder) as weights:
        for name, tensor in before.items():
            assert torch.equal(weights.read(name), tensor), name
    return before


@pytest.mark.parametrize("kind", ["gpt2", "opt", "neox-tied", "llama-gqa-tied"])
def test_models_saved_without_a_head_or_with_buffers(kind: str, tmp_path: Path) -> None:
    """The first GPT-2 has no prefix and its masks, older Pythia and Llama rotary buffers, some a head."""
    next(case for case in CASES if case.id == kind).build().save_pretrained(tmp_path)
    with FolderWeights(tmp_path) as weights:
        dialect, tied = weights.dialect, weights.dialect.tensors(weights.config)[0].name
    buffers = {
        "gpt2": {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.1.attn.masked_bias": torch.tensor(-1e4)},
        "opt": {"decoder.version": torch.tensor([3.0])},
        "neox-tied": {"layers.0.attention.rotary_emb.inv_freq": torch.ones(2)},
        "llama-gqa-tied": {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)},
    }[kind]
    head = "embed_out.weight" if kind == "neox-tied" else "lm_head.weight"
    _rewritten(tmp_path, lambda t: t | {head: t[tied].clone()})
    _rewritten(tmp_path, lambda t: {n.removeprefix(dialect.prefix): v for n, v in t.items() if n != head})
    _rewritten(tmp_path, lambda t: t | buffers)


def test_an_unknown_tensor_is_no_buffer(tmp_path: Path) -> None:
    CASES[0].build().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"model.layers.0.self_attn.q_proj.lora": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match="does not fit the tensors"):
        FolderWeights(tmp_path)
