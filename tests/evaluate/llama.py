"""A Hugging Face folder of a small model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from growlm.convert.companions import companions_for
from tests.inference.models import tokenizer


def save_llama(path: Path) -> Path:
    """A small Llama whose weights are not small, so that choices differ."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer().vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.3,
        bos_token_id=None, eos_token_id=tokenizer().eos_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    for name, content in companions_for(tokenizer(), None).items():
        (path / name).write_bytes(content)
    return path
