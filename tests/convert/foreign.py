"""Small models of transformers' own classes with every parameter random, and our decoder of a folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from growlm.convert.folder import FolderWeights
from growlm.model.decoder import Decoder


@dataclass(frozen=True)
class Case:
    """One kind of model: transformers' name of its config and the keys that make it small."""

    id: str
    cls: str
    keys: dict[str, Any] = field(default_factory=dict)

    def build(self) -> PreTrainedModel:
        """The model, in fp32, with random weights, biases and gains, in evaluation mode."""
        config = getattr(transformers, f"{self.cls}Config")(**_NO_IDS | self.keys)
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, p in model.named_parameters():
                gain = p.dim() == 1 and name.endswith("weight")
                p.copy_(torch.randn_like(p) * 0.3 + (1.0 if gain else 0.0))
        return model.eval()


_NO_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_LLAMA = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_OPT = {k: v for k, v in _LLAMA.items() if k != "intermediate_size"} | {"ffn_dim": 48}

CASES = [
    Case("llama", "Llama", _LLAMA),
    Case("llama-gqa-tied", "Llama", _LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    Case("llama-head_dim", "Llama", _LLAMA | {"head_dim": 12, "num_key_value_heads": 1}),
    Case("llama3-rope", "Llama", _LLAMA | {"num_key_value_heads": 2, "rope_parameters": _LLAMA3}),
    Case("mistral", "Mistral", _LLAMA | {"num_key_value_heads": 2, "sliding_window": None}),
    Case("qwen2", "Qwen2", _LLAMA | {"num_key_value_heads": 2}),
    Case("qwen2-tied", "Qwen2", _LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    Case("qwen3", "Qwen3", _LLAMA | {"num_key_value_heads": 2, "head_dim": 16}),
    Case(
        "qwen3-tied", "Qwen3", _LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True, "head_dim": 8}
    ),
    Case("gpt2", "GPT2", _GPT2),
    Case("gpt2-untied", "GPT2", _GPT2 | {"tie_word_embeddings": False, "n_inner": 40}),
    Case("neox", "GPTNeoX", _LLAMA),
    Case("neox-tied", "GPTNeoX", _LLAMA | {"rotary_pct": 0.5, "tie_word_embeddings": True}),
    Case("opt", "OPT", _OPT),
    Case("opt-untied", "OPT", _OPT | {"tie_word_embeddings": False}),
]


def decoder_of(folder: Path, dtype: torch.dtype) -> Decoder:
    """Our decoder with the weights of a folder."""
    with FolderWeights(folder) as weights:
        decoder = Decoder(weights.config).to(dtype)
        decoder.load_state_dict({name: weights.read(name) for name in decoder.state_dict()})
    return decoder.eval()


def in_fp64(model: PreTrainedModel) -> PreTrainedModel:
    """The model in fp64, also where transformers computes in fp32 whatever the weights are."""
    for module in model.double().modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm"):
            module.forward = partial(_rms_norm, module)
        elif kind.endswith("RotaryEmbedding"):
            module.forward = partial(_rotary, _inv_freq(model.config))
    return model


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    return module.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon)


def _rotary(inv_freq: Tensor, _: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    angle = (position_ids[..., None].double() * inv_freq).repeat(1, 1, 2)
    return angle.cos(), angle.sin()


def _inv_freq(config: Any) -> Tensor:
    """Frequencies in fp64; those of Llama 3 by Meta's formula: long waves slower, short ones kept."""
    rope = config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    inv_freq = rope["rope_theta"] ** -(torch.arange(0, width, 2).double() / width)
    if rope["rope_type"] == "llama3":
        low, high, old = (
            rope[k] for k in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        )
        smooth = ((old * inv_freq / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        inv_freq = inv_freq * ((1 - smooth) / rope["factor"] + smooth)
    return inv_freq


def tokens(vocab: int = 96, shape: tuple[int, int] = (2, 24)) -> Tensor:
    """Random token ids (B, T)."""
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(1))
