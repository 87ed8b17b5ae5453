"""Recomputation changes no bit of a gradient, and keeps less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from growlm.model import attention
from growlm.model.decoder import Decoder
from growlm.model.masks import Ramp
from growlm.parallel.recompute import PRODUCTS, recompute
from growlm.plan.layout import Layout, Recompute
from tests.model.tiny import batch, config, gradients

RAMP = Ramp(10, {"d_model": ((10, 16),), "q": ((8, 16),), "ffn": ((20, 24),), "vocab": ((45, 50),)}, (1,))
NONE: tuple[Recompute, int] = ("none", 1)
WAYS: list[tuple[Recompute, int]] = [("selective", 1), ("full", 1), ("selective", 2), ("full", 2)]


def model(family: str, dtype: torch.dtype | None, way: Recompute, every: int, **shape: Any) -> Decoder:
    decoder = Decoder(config(family, n_layers=3, **shape)).init_weights(0)
    decoder.compute_dtype = dtype
    recompute(decoder, Layout(recompute=way, recompute_every=every))
    return decoder


@pytest.mark.parametrize("explicit_up_to", [0, 512], ids=["sdpa", "explicit"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", ["flm", "llama", "qwen3"])
def test_gradients_are_those_without_it_bit_for_bit(
    family: str, dtype: torch.dtype | None, explicit_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "EXPLICIT_MAX_T", explicit_up_to)
    for mask in (1.0, 0.3):
        expected: dict[str, Tensor] = {}
        for way, every in [NONE, *WAYS]:
            decoder = model(family, dtype, way, every)
            decoder.set_mask(RAMP, mask)
            found = gradients(decoder, *batch(decoder.config))
            expected = expected or found
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in found), (way, every, mask)


def kept_bytes(decoder: Decoder) -> int:
    """Bytes that a forward pass allocates and the backward pass still waits for."""
    tokens, targets = batch(decoder.config, length=64)
    decoder.loss(tokens, targets)  # tables and biases are made, which stay
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as memory:
        loss = decoder.loss(tokens, targets)
    assert loss.requires_grad
    return sum(event.self_cpu_memory_usage for event in memory.events() or [])


def test_each_way_keeps_less_than_the_one_before() -> None:
    shape = {"d_model": 32, "d_ff": 128}
    kept = {
        (way, every): kept_bytes(model("llama", None, way, every, **shape)) for way, every in [NONE, *WAYS]
    }
    assert kept["full", 1] < kept["selective", 1] / 3 < kept["none", 1] / 9
    assert kept["full", 1] < kept["full", 2] < kept["selective", 2] < kept["none", 1]


class Products(TorchDispatchMode):
    """Counts the matrix products that run."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in PRODUCTS
        return func(*args, **(kwargs or {}))


def products(decoder: Decoder) -> int:
    with Products() as counter:
        gradients(decoder, *batch(decoder.config))
    return counter.count


@pytest.mark.parametrize(("family", "linears"), [("flm", 6), ("llama", 7)])
def test_what_is_made_again(family: str, linears: int) -> None:
    """All but the last product of a block, whose result no gradient needs; and half of them."""
    plain = products(model(family, None, "none", 1))
    assert products(model(family, None, "full", 1)) - plain == 3 * (linears - 1)
    assert products(model(family, None, "full", 2)) - plain == 2 * (linears - 1)
    assert products(model(family, None, "full", 3)) - plain == linears - 1
    again = sum(n % 2 == 0 for n in range(1, linears))
    assert products(model(family, None, "selective", 1)) - plain == 3 * again
