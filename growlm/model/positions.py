"""Rotary positions: RoPE (2104.09864) and xPos (2212.10554), half-split layout.

Pairs are (i, i + E/2). xPos multiplies queries by zeta^(n/base) and keys by zeta^(-n/base), so a score
between positions m and n decays as zeta^((m-n)/base). Positions are centred on the sequence: only
differences matter, and the factors stay in range (as in the released FLM-101B model).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from growlm.recipe.families import Family
from growlm.recipe.shape import ModelConfig


@lru_cache(maxsize=16)
def rotary_tables(
    config: ModelConfig, position: str, length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """cos and sin for queries, then for keys; each (T, E), computed in fp64 and kept in `dtype`."""
    half = config.head_dim // 2
    pair = torch.arange(half, dtype=torch.float64)
    inv_freq = config.rope_theta ** (-2.0 * pair / config.head_dim)
    n = torch.arange(length, dtype=torch.float64)
    angle = torch.outer(n, inv_freq).repeat(1, 2)
    cos, sin = angle.cos(), angle.sin()
    scale = torch.ones_like(angle)
    if position == "xpos":
        zeta = (2 * pair + 0.4 * config.head_dim) / (1.4 * config.head_dim)
        power = (n - length // 2) / config.xpos_scale_base
        scale = (zeta[None, :] ** power[:, None]).repeat(1, 2)
    tables = (cos * scale, sin * scale, cos / scale, sin / scale)
    return tuple(t.to(device=device, dtype=dtype) for t in tables)  # type: ignore[return-value]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads (B, H, T, E) by tables (T, E), in the tables' precision, back in x's dtype."""
    return _Rotation.apply(x, cos, sin)  # type: ignore[return-value]


class _Rotation(torch.autograd.Function):
    """(a, b) -> (a cos - b sin, b cos + a sin) for the halves of each head; its transpose has -sin."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.tables = cos, sin
        half = cos.shape[-1] // 2
        wide = x.to(cos.dtype)
        out = wide * cos
        out[..., :half].addcmul_(wide[..., half:], sin[:, :half], value=-1)
        out[..., half:].addcmul_(wide[..., :half], sin[:, :half])
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.tables
        return _Rotation.apply(grad_outputs[0], cos, -sin), None, None  # type: ignore[return-value]


def apply_rotary(q: Tensor, k: Tensor, config: ModelConfig, family: Family) -> tuple[Tensor, Tensor]:
    """Queries (B, H, T, E) and keys (B, K, T, E) with their positions 0..T-1 rotated in."""
    precision = torch.float64 if q.dtype == torch.float64 else torch.float32
    tables = rotary_tables(config, family.position, q.shape[2], q.device, precision)
    return rotate(q, tables[0], tables[1]), rotate(k, tables[2], tables[3])
