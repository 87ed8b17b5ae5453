"""Compiled blocks train as plain ones, share their graphs, and are not compiled again by a mask ramp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch._dynamo.utils import counters
from torch.distributed.device_mesh import init_device_mesh

from growlm.model.decoder import Decoder
from growlm.model.masks import Ramp
from growlm.parallel.compile import as_written, compile_blocks
from growlm.parallel.recompute import recompute
from growlm.parallel.sharding import shard
from growlm.plan.layout import Layout, Recompute
from growlm.recipe.schema import OptimTable
from growlm.train.optimizer import Optimizer
from tests.model.tiny import batch, config

RAMP = Ramp(10, {"d_model": ((10, 16),), "q": ((8, 16),), "ffn": ((20, 24),), "vocab": ((45, 50),)}, (1, 3))
STEPS = 5

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def count_from_zero() -> None:
    counters.clear()


@pytest.fixture
def one_rank() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    assert dist.group.WORLD is not None
    yield dist.group.WORLD
    dist.destroy_process_group()


def train(model: Decoder, ramp: Ramp | None = None) -> list[float]:
    """Losses and gradient norms of a few steps of gradient descent."""
    tokens, targets = batch(model.config)
    figures = []
    for step in range(STEPS):
        model.set_mask(ramp, (step + 1) / 10)
        loss = model.loss(tokens, targets)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                figures.append(p.grad.norm().item())
                p.sub_(p.grad, alpha=0.1)
        model.zero_grad()
        figures.append(loss.item())
    return figures


def plain(family: str, **changes: Any) -> Decoder:
    return Decoder(config(family, n_layers=4, **changes)).init_weights(0)


COMPLETEP = {"mup_base_d_model": 4, "mup_base_n_layers": 2, "logit_mult": 0.25}
"""4 times as wide as its base shape and twice as deep."""


def optimized(model: Decoder) -> list[float]:
    """Losses of steps with multipliers for each parameter by its name."""
    optimizer = Optimizer.of(model, OptimTable.model_validate({"lr": 1e-2, "eps": 1e-3}), {})
    assert optimizer.parameters.keys() == dict(model.named_parameters()).keys()
    tokens, targets = batch(model.config)
    losses = []
    for update in range(1, STEPS + 1):
        model.zero_grad()
        loss = model.loss(tokens, targets)
        loss.backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step(grads, 1e-2, update)
        losses.append(loss.item())
    return losses


def test_multipliers_survive() -> None:
    """The branches' in the graph, the optimizer's by the names that compiled blocks keep."""
    model = plain("llama", **COMPLETEP)
    compile_blocks(model)
    compiled = optimized(model)
    assert compiled == pytest.approx(optimized(plain("llama", **COMPLETEP)), rel=1e-5)
    assert compiled != pytest.approx(optimized(plain("llama")), rel=1e-3)
    assert graphs() == 1


def graphs() -> int:
    """Graphs that were made; none of them by a break in another."""
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    ("family", "ramp", "way", "expected"),
    [
        ("llama", None, "none", 1),
        ("flm", None, "full", 1),
        ("qwen3", None, "selective", 1),
        ("flm", RAMP, "selective", 2),  # blocks that are new are gated, the others not
    ],
)
def test_trains_as_the_plain_model(family: str, ramp: Ramp | None, way: Recompute, expected: int) -> None:
    model = plain(family)
    recompute(model, Layout(recompute=way))
    compile_blocks(model)
    assert train(model, ramp) == pytest.approx(train(plain(family), ramp), rel=1e-5, abs=1e-7)
    assert graphs() == expected


def test_in_bf16_what_differs_is_rounding() -> None:
    losses = []
    for compiled in (False, True):
        model = plain("flm")
        model.compute_dtype = torch.bfloat16
        if compiled:
            compile_blocks(model)
        losses.append(train(model)[-1])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_inside_fsdp(one_rank: dist.ProcessGroup) -> None:  # noqa: ARG001
    layout = Layout(recompute="selective", compile=True)
    model = plain("llama")
    recompute(model, layout)
    compile_blocks(model)
    shard(model, init_device_mesh("cpu", (1,)), layout, torch.float32)
    assert train(model) == pytest.approx(train(plain("llama")), rel=1e-5, abs=1e-7)
    assert graphs() == 1


def test_other_shapes_outside_training_are_not_compiled() -> None:
    model = plain("llama")
    tokens, _ = batch(model.config)
    expected = [model.logits(tokens[:, :length]) for length in (3, 5)]
    compile_blocks(model)
    with torch.no_grad(), as_written(Layout(compile=True)):
        assert all(torch.equal(model.logits(tokens[:, : e.shape[1]]), e) for e in expected)
    assert graphs() == 0
