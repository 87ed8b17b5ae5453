"""Causal attention with grouped keys and values: SDPA, and an explicit form where SDPA's backward is slow.

On CPU the flash kernel's backward does not use bf16 matrix units; up to 512 positions two batched
matmuls and a softmax are faster (benchmarks/cpu_train.py). Both give the same result.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

EXPLICIT_MAX_T = 512
GROUPED_ON_CUDA = (torch.bfloat16, torch.float16)
"""In which flash and cuDNN attention take grouped keys; in others torch would keep T x T scores."""


def attention(q: Tensor, k: Tensor, v: Tensor, mult: float = 1.0, seen: Tensor | None = None) -> Tensor:
    """softmax(mult q k^T / sqrt(E), causal) v for q (B, H, T, E), k and v (B, K, T, E), H a multiple of K.

    `seen`, (B, 1, T, T) of bool, says which keys each query sees, in place of all before it.
    """
    scale = mult * q.shape[-1] ** -0.5
    if seen is not None:
        group = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))  # kernels with a mask take no groups
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    if q.device.type == "cpu" and q.shape[2] <= EXPLICIT_MAX_T:
        return explicit_attention(q, k, v, scale)
    gqa = q.shape[1] != k.shape[1]
    if gqa and q.is_cuda and q.dtype not in GROUPED_ON_CUDA:
        group = q.shape[1] // k.shape[1]
        k, v, gqa = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1), False
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)


def seen_attention(q: Tensor, k: Tensor, v: Tensor, mult: float, hidden: Tensor | None) -> Tensor:
    """As `attention` for q (B, H, T, E), k and v (B, K, S, E). The queries of a group are stacked along time,
    and `hidden`, (B, 1, H/K*T, S), is added to their scores: -inf where a key is not seen."""
    B, H, T, E = q.shape
    K = k.shape[1]
    stacked = q.reshape(B, K, H // K * T, E)
    return F.scaled_dot_product_attention(stacked, k, v, attn_mask=hidden, scale=mult * E**-0.5).view(q.shape)


def within_documents(tokens: Tensor, end: int) -> Tensor:
    """For `attention`: which keys each position of tokens (B, T) sees if documents, each of which ends with
    the token `end`, are kept apart, (B, 1, T, T)."""
    ends = tokens == end
    document = ends.cumsum(1) - ends.long()  # the end belongs to the document that it ends
    same = document[:, None, :, None] == document[:, None, None, :]
    return same.tril_()


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The same with two batched matmuls; the queries of a group are stacked along time."""
    B, H, T, E = q.shape
    K = k.shape[1]
    group = H // K
    stacked = (q * scale).reshape(B * K, group * T, E)
    keys, values = k.reshape(B * K, T, E), v.reshape(B * K, T, E)
    scores = torch.baddbmm(causal_bias(T, group, q.dtype), stacked, keys.transpose(1, 2))
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(B, H, T, E)


def causal_bias(T: int, group: int, dtype: torch.dtype) -> Tensor:
    """-inf above the diagonal, (group * T, T). Compiled code holds it as a constant."""
    return _cached_bias(T, group, dtype)


@lru_cache(maxsize=8)
def _cached_bias(T: int, group: int, dtype: torch.dtype) -> Tensor:
    bias = torch.full((T, T), float("-inf"), dtype=dtype).triu_(1)
    return bias.repeat(group, 1)
