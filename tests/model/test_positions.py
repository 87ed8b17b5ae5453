"""Rotary positions against complex arithmetic in float64, which shares nothing with the tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from growlm.model.positions import apply_rotary, rotary_tables
from growlm.recipe.families import FAMILIES
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import config

E = 128
TOLERANCE_FP32 = 1e-6
"""Of a score, relative to |q| |k|: a few fp32 roundings of one product."""


def wide(family: str) -> ModelConfig:
    return config(family, head_dim=E, n_heads=1, n_kv_heads=1)


def pairs(x: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Half-split layout: coordinate i is the real and i + E/2 the imaginary part of pair i."""
    return x[..., : E // 2] + 1j * x[..., E // 2 :]


def reference_score(
    q: NDArray[np.float64], k: NDArray[np.float64], distance: NDArray[np.int64], xpos: bool
) -> NDArray[np.float64]:
    """Sum over pairs of zeta^(distance/512) Re(q conj(k) e^(i theta distance)), (N,)."""
    i = np.arange(E // 2)
    turn = np.exp(1j * np.outer(distance, 10000.0 ** (-2 * i / E)))
    zeta = (np.arange(0, E, 2) + 0.4 * E) / (1.4 * E)
    decay = zeta ** (distance[:, None] / 512) if xpos else 1.0
    return (decay * pairs(q) * pairs(k).conj() * turn).real.sum(-1)


@pytest.mark.parametrize("length", [2048, 8192])
@pytest.mark.parametrize("family", ["flm", "llama"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, TOLERANCE_FP32), (torch.float64, 1e-11)])
def test_scores_equal_the_reference(family: str, length: int, dtype: torch.dtype, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((length, E)).astype(np.float32).astype(np.float64) for _ in range(2))
    n = np.concatenate([np.arange(length), [length - 1] * 500])
    m = np.concatenate([rng.integers(0, np.arange(length) + 1), np.linspace(0, length - 1, 500).astype(int)])
    turned = apply_rotary(
        torch.from_numpy(q)[None, None].to(dtype), torch.from_numpy(k)[None, None].to(dtype),
        wide(family), FAMILIES[family],
    )  # fmt: skip
    q_n, k_m = turned[0][0, 0].double().numpy()[n], turned[1][0, 0].double().numpy()[m]
    scores = (q_n * k_m).sum(-1)
    expected = reference_score(q[n], k[m], n - m, family == "flm")
    size = np.linalg.norm(q[n], axis=-1) * np.linalg.norm(k[m], axis=-1)
    assert np.abs((scores - expected) / size).max() < tolerance


@pytest.mark.parametrize("family", ["flm", "llama"])
def test_scores_depend_only_on_distance(family: str) -> None:
    """The same q and k everywhere, at two lengths: one score per distance."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, E, generator=generator, dtype=torch.float64)
    by_length = []
    for length in (256, 700):
        a, b = apply_rotary(
            q.expand(1, 1, length, E), k.expand(1, 1, length, E), wide(family), FAMILIES[family]
        )
        scores = (a @ b.transpose(-1, -2))[0, 0]
        for distance in (0, 1, 100, 255):
            same = scores.diagonal(-distance)
            torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-11)
        by_length.append(torch.stack([scores[distance, 0] for distance in range(256)]))
    torch.testing.assert_close(by_length[0], by_length[1], rtol=0, atol=1e-11)


def test_xpos_scales_queries_up_and_keys_down_by_zeta() -> None:
    tables = rotary_tables(wide("flm"), "xpos", 64, torch.device("cpu"), torch.float64)
    q_scale, k_scale = tables[0].hypot(tables[1]), tables[2].hypot(tables[3])
    zeta = ((torch.arange(0, E, 2, dtype=torch.float64) + 0.4 * E) / (1.4 * E)).repeat(2)
    torch.testing.assert_close(q_scale[1:] / q_scale[:-1], (zeta ** (1 / 512)).expand(63, E))
    torch.testing.assert_close(k_scale, 1 / q_scale)
    torch.testing.assert_close(q_scale[32], torch.ones(E, dtype=torch.float64))  # centred on the sequence


def test_bf16_heads_are_turned_in_fp32() -> None:
    q = torch.randn(1, 1, 512, E, generator=torch.Generator().manual_seed(0)).bfloat16()
    turned, _ = apply_rotary(q, q, wide("flm"), FAMILIES["flm"])
    exact, _ = apply_rotary(q.double(), q.double(), wide("flm"), FAMILIES["flm"])
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.double(), exact, rtol=2**-8, atol=1e-6)
