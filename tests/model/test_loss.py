"""The chunked loss is the plain loss, in value and gradient, and never holds all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from growlm.model import loss as module
from growlm.model.loss import cross_entropy
from tests.model.tiny import config, decoder, gradients, trained

N, D, V = 60, 8, 50


def problem(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator).requires_grad_()
    bias = torch.randn(V, generator=generator, dtype=torch.float64)
    return hidden, weight, torch.randint(0, V, (N,), generator=generator), bias


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, mult: float, bias: Tensor | None) -> Tensor:
    logits = mult * (hidden @ weight.T)
    return F.cross_entropy(logits if bias is None else logits + bias.to(logits.dtype), targets)


@pytest.mark.parametrize("elements", [1, 3 * V, 7 * V, N * V, 1 << 22])
@pytest.mark.parametrize(("mult", "with_bias"), [(1.0, False), (0.25, False), (2.0, True)])
def test_value_and_gradients_equal_the_plain_form(
    elements: int, mult: float, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
    hidden, weight, targets, bias = problem()
    added = bias if with_bias else None
    results = []
    for loss in (
        plain(hidden, weight, targets, mult, added),
        cross_entropy(hidden, weight, targets, mult=mult, bias=added)[0],
    ):
        results.append(
            [loss, *torch.autograd.grad(loss / 2, [hidden, weight])]
        )  # as gradient accumulation does
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_gradients_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 4 * V)
    hidden, weight, targets, bias = problem(torch.float64)
    inputs = (hidden.detach()[:9].requires_grad_(), weight.detach().double().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda h, w: cross_entropy(h, w, targets[:9], mult=0.7, bias=bias)[0], inputs, fast_mode=True
    )


def test_bf16_hidden_states_within_their_rounding() -> None:
    hidden, weight, targets, _ = problem(torch.bfloat16)
    loss, _ = cross_entropy(hidden, weight, targets, mult=0.5)
    loss.backward()
    wide_hidden, wide_weight = (x.detach().float().requires_grad_() for x in (hidden, weight))
    expected = plain(wide_hidden, wide_weight, targets, 0.5, None)
    expected.backward()
    assert loss.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)
    for narrow, wide in ((hidden, wide_hidden), (weight, wide_weight)):
        assert narrow.grad is not None
        assert wide.grad is not None
        error = (narrow.grad.float() - wide.grad).norm() / wide.grad.norm()
        assert error < 1e-2


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_gives_the_same_loss_and_gradients_through_logits(tied: bool) -> None:
    """A tied matrix gets both its gradients; the logit multiplier and the mask's bias are applied."""
    c = config("llama", tied=tied, logit_mult=0.5)
    model = decoder(c, trained(c))
    generator = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(0, c.vocab_size, (2, 2, 12), generator=generator)
    chunked = gradients(model, tokens, targets)
    chunked = {name: g.clone() for name, g in chunked.items()}
    model.zero_grad()
    F.cross_entropy(model.logits(tokens).flatten(0, 1), targets.flatten()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(chunked[name], p.grad, rtol=0, atol=1e-14)


class Allocations(TorchDispatchMode):
    """Records the largest tensor made and the number of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.products = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.numel())
        self.products += func.overloadpacket is torch.ops.aten.mm
        return out


def test_no_tensor_of_all_logits_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 6 * V)
    hidden, weight, targets, bias = problem()
    with Allocations() as seen:
        cross_entropy(hidden, weight, targets, mult=0.5, bias=bias)[0].backward()
    assert seen.largest <= max(6 * V, N * D, V * D) < N * V
    assert seen.products == 3 * (N // 6)


def test_validation_makes_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 6 * V)
    hidden, weight, targets, _ = problem()
    expected = cross_entropy(hidden, weight, targets)[0].detach()
    with torch.no_grad(), Allocations() as seen:
        actual, _ = cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert seen.products == N // 6
