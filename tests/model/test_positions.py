"""Rotary positions against complex arithmetic in float64, which shares nothing with the tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from growlm.model.positions import apply_rotary, rotary_tables, rotate
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


def table_angles(c: ModelConfig, length: int = 8) -> torch.Tensor:
    """Angle of every rotated pair at every position, (T, pairs)."""
    cos, sin, _, _ = rotary_tables(c, "rope", length, torch.device("cpu"), torch.float64)
    pairs = cos.shape[1] // 2
    return torch.atan2(sin[:, :pairs], cos[:, :pairs])


def test_llama_3_frequencies_are_the_published_ones() -> None:
    """As in the released code: by wavelength, in three cases."""
    factor, low, high, original = 8.0, 1.0, 4.0, 8192.0
    c = config(head_dim=64, rope_theta=500_000.0, rope_scaling=(factor, low, high, original))
    published, cases = [], set()
    for i in range(32):
        f = 500_000.0 ** (-i / 32)
        wavelength = 2 * math.pi / f
        if wavelength < original / high:
            published.append(f)
            cases.add("high")
        elif wavelength > original / low:
            published.append(f / factor)
            cases.add("low")
        else:
            smooth = (original / wavelength - low) / (high - low)
            published.append((1 - smooth) * f / factor + smooth * f)
            cases.add("between")
    assert cases == {"high", "low", "between"}
    torch.testing.assert_close(
        table_angles(c)[1], torch.tensor(published, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_old_pairs_keep_their_frequencies_and_decays_in_a_larger_head() -> None:
    small = config("flm", head_dim=8)
    large = small.with_(head_dim=12, rotary=(*small.rotary_exponents, 0.125, 0.375))
    tables = [rotary_tables(c, "xpos", 50, torch.device("cpu"), torch.float64) for c in (small, large)]
    for old, new in zip(*tables, strict=True):
        assert new.shape == (50, 12)
        assert torch.equal(new[:, [0, 1, 2, 3, 6, 7, 8, 9]], old)


def test_a_head_turned_in_part_keeps_the_rest_and_has_the_right_gradient() -> None:
    c = config("neox", head_dim=8, rotary_share=0.5)
    x = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned, _ = apply_rotary(x, x, c, FAMILIES["neox"])
    whole, _ = apply_rotary(x[..., :4], x[..., :4], c.with_(head_dim=4, rotary_share=1.0), FAMILIES["neox"])
    assert torch.equal(turned, torch.cat((whole, x[..., 4:]), dim=-1))
    cos, sin, _, _ = rotary_tables(c, "rope", 5, x.device, x.dtype)
    assert torch.autograd.gradcheck(lambda t: rotate(t, cos, sin), x.requires_grad_())
