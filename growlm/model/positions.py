"""Rotary positions: RoPE (2104.09864) and xPos (2212.10554), half-split layout.

Of R rotated coordinates, the first of a head, pairs are (i, i + R/2); R is E but for GPT-NeoX. A pair with
exponent e turns by theta^-e per position. xPos multiplies queries by zeta^(n/base) and keys by
zeta^(-n/base), so a score between positions m and n decays as zeta^((m-n)/base); zeta = (e + 0.4) / 1.4.
Positions are centred on the sequence: only differences matter, and the factors stay in range (as in the
released FLM-101B model).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from growlm.recipe.families import Family
from growlm.recipe.shape import ModelConfig

Tables = tuple[Tensor, Tensor, Tensor, Tensor]
"""cos and sin for queries, then for keys; each (T, R)."""


def rotary_tables(
    config: ModelConfig, position: str, length: int, device: torch.device, dtype: torch.dtype
) -> Tables:
    """The tables of a model for positions 0..length-1, computed in fp64 and kept in `dtype`."""
    return constant_tables(
        config.rotary_exponents,
        config.rope_theta,
        config.rope_scaling,
        config.xpos_scale_base if position == "xpos" else None,
        length,
        device,
        dtype,
    )


def constant_tables(*given: Any) -> Tables:
    """Compiled code holds the result as constants; of plain values only (torch 2.11 takes no dataclass)."""
    return _cached_tables(*given)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # training may use the same tables
def _cached_tables(
    exponents: tuple[float, ...],
    theta: float,
    scaling: tuple[float, float, float, float] | None,
    xpos_base: float | None,
    length: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tables:
    e = torch.tensor(exponents, dtype=torch.float64)
    n = torch.arange(length, dtype=torch.float64)
    angle = torch.outer(n, _frequencies(e, theta, scaling)).repeat(1, 2)
    cos, sin = angle.cos(), angle.sin()
    scale = torch.ones_like(angle)
    if xpos_base is not None:
        zeta = (e + 0.4) / 1.4
        power = (n - length // 2) / xpos_base
        scale = (zeta[None, :] ** power[:, None]).repeat(1, 2)
    tables = (cos * scale, sin * scale, cos / scale, sin / scale)
    return tuple(t.to(device=device, dtype=dtype) for t in tables)  # type: ignore[return-value]


def _frequencies(
    exponents: Tensor, theta: float, scaling: tuple[float, float, float, float] | None
) -> Tensor:
    """Radians per position, (pairs).

    Llama 3 (2407.21783) divides the slow ones by `factor`: all that turn less than `low` times in the
    `original` positions, none that turn more than `high` times, and between the two a share.
    """
    frequencies = theta**-exponents
    if scaling is None:
        return frequencies
    factor, low, high, original = scaling
    turns = original * frequencies / (2 * math.pi)
    unchanged = ((turns - low) / (high - low)).clamp(0, 1)
    return torch.lerp(frequencies / factor, frequencies, unchanged)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first R of heads (B, H, T, E) by tables (T, R) or (B, 1, T, R), in their precision, back
    in x's dtype."""
    if torch.compiler.is_compiling():  # which fuses the plain form, and the conversions, into one kernel
        R = cos.shape[-1]
        wide = x[..., :R].to(cos.dtype)
        swapped = torch.cat((-wide[..., R // 2 :], wide[..., : R // 2]), dim=-1)
        turned = (wide * cos + swapped * sin).to(x.dtype)
        return torch.cat((turned, x[..., R:]), dim=-1)
    if not torch.is_grad_enabled():
        return _turned(x, cos, sin)
    return _Rotation.apply(x, cos, sin)  # type: ignore[return-value]


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    R = cos.shape[-1]
    half = R // 2
    wide = x[..., :R].to(cos.dtype)
    out = wide * cos
    out[..., :half].addcmul_(wide[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(wide[..., :half], sin[..., :half])
    turned = out.to(x.dtype)
    return turned if x.shape[-1] == R else torch.cat((turned, x[..., R:]), dim=-1)


class _Rotation(torch.autograd.Function):
    """(a, b) -> (a cos - b sin, b cos + a sin) for the halves of what turns; its transpose has -sin."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.tables = cos, sin
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.tables
        return _Rotation.apply(grad_outputs[0], cos, -sin), None, None  # type: ignore[return-value]


def apply_rotary(
    q: Tensor, k: Tensor, config: ModelConfig, family: Family, tables: Tables | None = None
) -> tuple[Tensor, Tensor]:
    """Queries (B, H, T, E) and keys (B, K, T, E) with their positions rotated in, if the family rotates.

    These are 0..T-1, or those of `tables`.
    """
    if family.position == "learned":
        return q, k
    if tables is None:
        tables = rotary_tables(config, family.position, q.shape[2], q.device, _precision(q.dtype))
    cos_q, sin_q, cos_k, sin_k = tables
    return rotate(q, cos_q, sin_q), rotate(k, cos_k, sin_k)


def tables_at(
    config: ModelConfig, family: Family, length: int, at: Tensor, dtype: torch.dtype
) -> Tables | None:
    """The tables, each (B, 1, T, R), of positions `at` (B, T) for queries of `dtype`; None where positions
    are learned. xPos is centred on the middle of `length`."""
    if family.position == "learned":
        return None
    cos_q, sin_q, cos_k, sin_k = rotary_tables(config, family.position, length, at.device, _precision(dtype))
    queries = cos_q[at][:, None], sin_q[at][:, None]
    keys = (cos_k[at][:, None], sin_k[at][:, None]) if family.position == "xpos" else queries
    return *queries, *keys


def _precision(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
