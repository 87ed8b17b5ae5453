"""FLOPs of a model, by the convention that every figure of GrowLM uses. No torch.

Model FLOPs: 6 per token for every weight of a matmul (head included, embedding lookup not) plus
12 * L * H*E * T for attention scores and values, counted without causal halving and without
recomputation (PaLM, 2204.02311, appendix B).
"""

from __future__ import annotations

from growlm.plan.layout import Layout, Recompute, block_parameters, cut_layers
from growlm.recipe.shape import ModelConfig


def matmul_flops(config: ModelConfig, seq_len: int) -> dict[str, float]:
    """Forward and backward FLOPs per trained token of every kind of matmul, over all blocks.

    `scores` and `values` are attention's, q k^T and p v: 2 H*E T each forward, twice that backward.
    """
    blocks = config.n_layers
    found = {
        p.name.split(".")[-2]: 6.0 * blocks * p.numel for p in block_parameters(config) if p.role == "hidden"
    }
    each = 6.0 * blocks * config.n_heads * config.head_dim * seq_len
    return found | {"scores": each, "values": each, "head": head_flops(config)}


def flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """Forward and backward FLOPs per trained token at context `seq_len`."""
    return config.n_layers * block_flops(config, seq_len) + head_flops(config)


def causal_flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """The same when attention is counted over half of the square, as Megatron-LM prints it."""
    return flops_per_token(config, seq_len) - config.n_layers * attention_flops(config, seq_len) / 2


def executed_flops_per_token(config: ModelConfig, layout: Layout, seq_len: int) -> float:
    """The same with what the backward pass makes again."""
    runs = cut_layers(config, layout.pp * layout.interleave)
    again = sum(len(run[:: layout.recompute_every]) for run in runs)
    return flops_per_token(config, seq_len) + again * recomputed_flops(config, seq_len, layout.recompute)


def block_flops(config: ModelConfig, seq_len: int) -> float:
    """The share of one block in `flops_per_token`."""
    hidden = sum(p.numel for p in block_parameters(config) if p.role == "hidden")
    return 6.0 * hidden + attention_flops(config, seq_len)


def attention_flops(config: ModelConfig, seq_len: int) -> float:
    """The share of scores and values of one block in `flops_per_token`."""
    return 12.0 * config.n_heads * config.head_dim * seq_len


def recomputed_flops(config: ModelConfig, seq_len: int, recompute: Recompute) -> float:
    """What making one block again adds per token: all of its forward pass, or of that every second matrix
    product (parallel/recompute.py). The last product is never made again: nothing needs its result."""
    products = [2.0 * p.numel for p in block_parameters(config) if p.role == "hidden"]
    if not products or recompute == "none":
        return 0.0
    if recompute == "full":
        return block_flops(config, seq_len) / 3 - products[-1]
    return sum(products[1:-1:2])


def head_flops(config: ModelConfig) -> float:
    """The share of the output head in `flops_per_token`."""
    return 6.0 * config.vocab_size * config.d_model
