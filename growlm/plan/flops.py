"""FLOPs of a model, by the convention that every figure of GrowLM uses. No torch.

Model FLOPs: 6 per token for every weight of a matmul (head included, embedding lookup not) plus
12 * L * H*E * T for attention scores and values, counted without causal halving and without
recomputation (PaLM, 2204.02311, appendix B).
"""

from __future__ import annotations

from growlm.plan.layout import block_parameters
from growlm.recipe.shape import ModelConfig


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that take part in a matmul for every token."""
    hidden = sum(p.numel for p in block_parameters(config) if p.role == "hidden")
    return config.n_layers * hidden + config.vocab_size * config.d_model


def flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """Forward and backward FLOPs per trained token at context `seq_len`."""
    attention = 12 * config.n_layers * config.n_heads * config.head_dim * seq_len
    return 6.0 * matmul_parameters(config) + attention


def block_flops(config: ModelConfig, seq_len: int) -> float:
    """The share of one block in `flops_per_token`."""
    hidden = sum(p.numel for p in block_parameters(config) if p.role == "hidden")
    return 6.0 * hidden + 12 * config.n_heads * config.head_dim * seq_len


def head_flops(config: ModelConfig) -> float:
    """The share of the output head in `flops_per_token`."""
    return 6.0 * config.vocab_size * config.d_model
