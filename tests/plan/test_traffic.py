"""Counted bytes are those that the engine hands to its collectives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from growlm.parallel.engine import Engine
from growlm.plan.activations import Work
from growlm.plan.flops import flops_per_token
from growlm.plan.layout import Layout
from growlm.plan.traffic import balance, bubble, traffic
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import config

STEP_STATISTICS = 16
"""Bytes of the loss and the norm of the gradient, which every step sums over all ranks."""


class Wire(TorchDispatchMode):
    """Adds up what this rank sends, by ring algorithms."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            largest = max((t.nbytes for t in tree_leaves(args) if isinstance(t, Tensor)), default=0)
            total = sum(t.nbytes for t in tree_leaves(args) if isinstance(t, Tensor))
            n = _group_size(args)
            if func.__name__.startswith("allreduce") and total > STEP_STATISTICS:
                self.sent += 2 * total * (n - 1) / n
            elif func.__name__.startswith(("_allgather_base", "_reduce_scatter_base")):
                self.sent += largest * (n - 1) / n
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_ranks(world: int) -> Iterator[None]:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sent(c: ModelConfig, layout: Layout, work: Work) -> float:
    """Bytes that rank 0 sends in a step of the engine."""
    micro_batches = work.micro_batches(layout)
    with fake_ranks(layout.world):
        engine = Engine(c, layout, 0, torch.device("cpu"), torch.float32, micro_batches)
        tokens = torch.zeros(micro_batches * layout.micro_batch, work.seq_len, dtype=torch.long)
        for parameter in engine.parameters.values():
            parameter.fill_(0.1)
        with Wire() as wire:
            engine.forward_backward(tokens, tokens)
    return wire.sent


def _group_size(args: Any) -> int:
    groups = [a for a in args if isinstance(a, torch.ScriptObject) and "ProcessGroup" in str(a._type())]
    return dist.ProcessGroup.unbox(groups[0]).size() if groups else 1


LAYOUTS = [
    Layout(tp=2, zero=0, micro_batch=2),
    Layout(tp=2, zero=0, micro_batch=2, sequence_parallel=True),
    Layout(dp=2, zero=0),
    Layout(dp=2, zero=1, micro_batch=2),
    Layout(dp=2, zero=2),
    Layout(dp=2, zero=3),
    Layout(dp=4, zero=1, replicas=2),
    Layout(dp=4, zero=3, replicas=2),
    Layout(dp=2, tp=2, zero=1, sequence_parallel=True),
    Layout(tp=2, zero=0, recompute="full", sequence_parallel=True),
    Layout(tp=2, zero=0, recompute="full"),
    Layout(tp=2, zero=0, recompute="selective", recompute_every=2, sequence_parallel=True),
    Layout(tp=2, zero=0, recompute="selective"),
]


@pytest.mark.parametrize("family", ["flm", "llama", "qwen3", "neox"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_rank_sends_what_is_counted(layout: Layout, family: str) -> None:
    c = config(family, d_model=16, d_ff=32, vocab_size=48, tied=family == "flm")
    work = Work(seq_len=16, batch_size=4 * layout.dp, compute_bytes=4)
    assert traffic(c, layout, work, 0).total == sent(c, layout, work)


def test_a_pipeline_sends_the_stream_and_its_gradient() -> None:
    c = config("flm", n_layers=8)
    work, stream = Work(seq_len=16, batch_size=24), 2 * 16 * c.d_model * 2  # two sequences in bf16
    layout = Layout(dp=3, tp=2, pp=4, zero=1, micro_batch=2, sequence_parallel=True)
    embedding = 4 * c.vocab_size * c.d_model / (layout.tp * layout.shards)
    pp = [traffic(c, layout, work, p).pp for p in range(4)]
    assert pp[1:3] == [4 * 2 * stream / 2] * 2, "of four micro-batches, forward and backward"
    assert pp[0] == pp[3] == round(4 * stream / 2 + embedding)
    untied = traffic(c.with_(tied=False), layout, work, 0).pp
    assert untied == 4 * stream / 2
    interleaved = Layout(dp=3, pp=4, zero=1, micro_batch=2, interleave=2)
    assert traffic(c.with_(tied=False), interleaved, work, 0).pp == 4 * 3 * stream


def test_muon_gathers_its_matrices_once_more() -> None:
    c, layout = config("llama"), Layout(dp=4, zero=1)
    adamw, muon = (traffic(c, layout, Work(seq_len=16, batch_size=4, muon=m), 0).dp for m in (False, True))
    per_block = c.d_model * (2 * c.n_heads * c.head_dim + 2 * c.n_kv_heads * c.head_dim + 3 * c.d_ff)
    assert muon - adamw == c.n_layers * per_block * 4 * 3 // 4


def test_balance_is_of_all_flops_and_the_head_weighs_on_the_last() -> None:
    c = config("flm", n_layers=8, vocab_size=4096)
    shares = balance(c, Layout(pp=4), 16)
    assert sum(shares) == pytest.approx(4)
    per_block = (flops_per_token(c, 16) - flops_per_token(c.with_(n_layers=7), 16)) / flops_per_token(c, 16)
    layers = [sum(map(len, Layout(pp=4).parts(c, p))) for p in range(4)]
    assert shares[:3] == pytest.approx([4 * n * per_block for n in layers[:3]])
    assert layers[3] == min(layers)


def test_the_bubble_is_the_published_share() -> None:
    work = Work(seq_len=16, batch_size=16)
    assert bubble(Layout(dp=16), work) == 0
    assert bubble(Layout(pp=4), work) == 3 / 19
    assert bubble(Layout(pp=4, interleave=3), work) == 3 / (3 * 16 + 3)
