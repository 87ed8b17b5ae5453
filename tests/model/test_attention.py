"""Both attention paths against a loop over positions, and nothing sees the future."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from growlm.model import attention as module
from growlm.model.attention import attention
from tests.model.tiny import config, decoder

PATHS = pytest.mark.parametrize("explicit_up_to", [0, 512], ids=["sdpa", "explicit"])


def naive(q: Tensor, k: Tensor, v: Tensor, mult: float) -> Tensor:
    """One query at a time; query head h reads key/value head h // (H / K)."""
    B, H, T, E = q.shape
    rows = []
    for b, h, t in ((b, h, t) for b in range(B) for h in range(H) for t in range(T)):
        group = h // (H // k.shape[1])
        p = torch.softmax(mult * (k[b, group, : t + 1] @ q[b, h, t]) / math.sqrt(E), 0)
        rows.append(p @ v[b, group, : t + 1])
    return torch.stack(rows).view(B, H, T, E)


@PATHS
@pytest.mark.parametrize(("heads", "kv_heads", "mult"), [(4, 4, 1.0), (6, 2, 0.3), (3, 1, 1.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_forward_and_gradients_equal_the_loop(
    heads: int, kv_heads: int, mult: float, dtype: torch.dtype, tolerance: float, explicit_up_to: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "EXPLICIT_MAX_T", explicit_up_to)
    generator = torch.Generator().manual_seed(0)
    q, k, v, cotangent = (
        torch.randn(2, n, 9, 4, generator=generator, dtype=torch.float64).to(dtype).double()
        for n in (heads, kv_heads, kv_heads, heads)
    )
    results = []
    for function, wide in ((naive, torch.float64), (attention, dtype)):
        inputs = [x.detach().to(wide).requires_grad_() for x in (q, k, v)]
        out = function(*inputs, mult=mult)
        results.append([out, *torch.autograd.grad(out, inputs, cotangent.to(wide))])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance)


@PATHS
@pytest.mark.parametrize("family", ["flm", "llama"])
def test_changing_the_future_changes_nothing_before(
    family: str, explicit_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPLICIT_MAX_T", explicit_up_to)
    c = config(family)
    model = decoder(c)
    tokens = torch.randint(0, c.vocab_size, (1, 20), generator=torch.Generator().manual_seed(0))
    before = model.logits(tokens)
    for t in (1, 10, 19):
        changed = tokens.clone()
        changed[:, t:] = (changed[:, t:] + 1) % c.vocab_size
        after = model.logits(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-13)
        assert (after[:, t:] - before[:, t:]).abs().amax() > 1e-3
