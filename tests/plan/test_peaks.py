"""The memory of a rank is within a tenth of the most that its tensors hold in a step of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from growlm.parallel.engine import Engine
from growlm.plan.activations import Work
from growlm.plan.footprint import footprint
from growlm.plan.layout import Layout
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Optimizer
from tests.model.tiny import config


class Peak(TorchDispatchMode):
    """The most bytes that storages hold at a time, after any operation: of all that operations were given or
    made."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def see(self, tensors: Any) -> None:
        for tensor in tree_leaves(tensors):
            if type(tensor) in (Tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = len(self.storages)
        out = func(*args, **(kwargs or {}))
        self.see((args, kwargs, out))
        if len(self.storages) == before:
            return out
        for key in [key for key, (ref, _) in self.storages.items() if ref.expired()]:
            del self.storages[key]
        self.most = max(self.most, sum(size for _, size in self.storages.values()))
        return out


@contextmanager
def ranks(world: int) -> Iterator[None]:
    """Rank 0 of a group whose collectives do nothing."""
    if world == 1:
        yield
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def peak(c: ModelConfig, layout: Layout, work: Work, dtype: torch.dtype) -> int:
    """The most bytes that rank 0 holds in a step."""
    micro_batches = work.micro_batches(layout)
    with ranks(layout.world):
        engine = Engine(c, layout, 0, torch.device("cpu"), dtype, micro_batches)
        for parameter in engine.parameters.values():
            parameter.fill_(0.01)
        optimizer = Optimizer(c, engine.parameters, engine.pieces, OptimTable(lr=1e-3), {})  # type: ignore[call-arg]
        tokens = torch.zeros(micro_batches * layout.micro_batch, work.seq_len, dtype=torch.long)
        with Peak() as found:
            found.see((list(engine.parameters.values()), optimizer.state_dict()))
            engine.forward_backward(tokens, tokens)
            optimizer.step(engine.grads, 1e-3, 1)
        return found.most


def wide(family: str) -> ModelConfig:
    heads = {"n_heads": 4, "n_kv_heads": 2 if family == "llama" else 4, "head_dim": 16}
    return config(family, **heads, d_model=64, d_ff=192, n_layers=6, vocab_size=256)


LAYOUTS = [
    Layout(zero=0, micro_batch=2),
    Layout(zero=0, micro_batch=2, recompute="full"),
    Layout(dp=4, zero=1, micro_batch=2),
    Layout(dp=4, zero=2, micro_batch=2),
    Layout(dp=4, zero=3, micro_batch=2),
    Layout(tp=2, zero=0, micro_batch=2, sequence_parallel=True),
    Layout(dp=2, tp=2, zero=1, micro_batch=2, sequence_parallel=True, recompute="selective"),
]


@pytest.mark.parametrize(("T", "micro_batches"), [(640, 1), (128, 2)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("family", ["flm", "llama"])
def test_a_rank_needs_what_is_estimated(family: str, layout: Layout, T: int, micro_batches: int) -> None:
    c, batch = wide(family), 2 * micro_batches * layout.dp
    work = Work(seq_len=T, batch_size=batch, compute_bytes=4, cpu=True)
    assert footprint(c, layout, work, 0).total == pytest.approx(peak(c, layout, work, torch.float32), rel=0.1)


@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[2], LAYOUTS[6]], ids=str)
def test_so_it_is_in_bf16_and_where_state_outweighs_activations(layout: Layout) -> None:
    c = wide("flm").with_(d_model=128, d_ff=512)
    for T, dtype in ((128, torch.bfloat16), (16, torch.float32)):
        work = Work(seq_len=T, batch_size=4 * layout.dp, compute_bytes=dtype.itemsize, cpu=True)
        assert footprint(c, layout, work, 0).total == pytest.approx(peak(c, layout, work, dtype), rel=0.1)
