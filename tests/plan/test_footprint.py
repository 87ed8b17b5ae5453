"""Estimated bytes are those that torch holds: exactly of the state, closely of what a forward pass keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from growlm.model import attention, loss
from growlm.model.parameters import n_parameters
from growlm.parallel.recompute import recompute
from growlm.plan.activations import CPU_SCORES, Work, in_flight, kept_bytes
from growlm.plan.auto import choose_layout
from growlm.plan.footprint import CHUNK_LOGITS, footprint, most_loaded
from growlm.plan.layout import Layout, Recompute
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Optimizer
from tests.model.tiny import batch, config, decoder


def nbytes(tensors: Any) -> int:
    return sum(t.nbytes for t in tensors)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize(("family", "tied"), [("flm", True), ("llama", False), ("qwen3", True)])
def test_the_state_of_one_process_is_counted_to_the_byte(family: str, tied: bool, name: str) -> None:
    c = config(family, tied=tied)
    model = decoder(c).float()
    optimizer = Optimizer.of(model, OptimTable(name=name, lr=1e-3), {})  # type: ignore[call-arg]
    model.loss(*batch(c)).backward()
    need = footprint(c, Layout(zero=0), Work(seq_len=16, batch_size=2, muon=name == "muon"), 0)
    assert need.weights == nbytes(model.parameters())
    assert need.gradients == nbytes(p.grad for p in model.parameters() if p.grad is not None)
    assert need.optimizer == nbytes(optimizer.state_dict().values())


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_ranks_share_out_the_state(zero: Any) -> None:
    c, work = config("flm", tied=False, n_layers=4), Work(seq_len=16, batch_size=16)
    layout = Layout(dp=4, pp=2 if zero == 1 else 1, zero=zero)
    every = [footprint(c, layout, work, rank) for rank in range(layout.world)]
    assert sum(need.weights for need in every) == 4 * n_parameters(c)
    assert sum(need.optimizer for need in every) == 8 * n_parameters(c)
    assert most_loaded(c, layout, work)[1].total == max(need.total for need in every)


def test_higher_zero_levels_need_less() -> None:
    c, work = config("llama", n_layers=12, d_model=64), Work(seq_len=16, batch_size=64)
    totals = [most_loaded(c, Layout(dp=8, zero=z), work)[1].total for z in (0, 1, 2, 3)]  # type: ignore[arg-type]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == 4


class Living(TorchDispatchMode):
    """Knows which of the storages made under it are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return out

    def bytes_beside(self, tensors: Any) -> int:
        known = {t.untyped_storage()._cdata for t in tensors}
        return sum(n for k, (ref, n) in self.storages.items() if k not in known and not ref.expired())


def kept(c: ModelConfig, layout: Layout, T: int, dtype: torch.dtype) -> int:
    """Bytes that a forward pass of the whole model leaves for the backward pass."""
    model = decoder(c).float()
    model.compute_dtype = dtype
    if layout.recompute != "none":
        recompute(model, layout)
    tokens, targets = (torch.zeros(layout.micro_batch, T, dtype=torch.long) for _ in range(2))
    model.loss(tokens, targets)  # so that tables of positions are there already
    with Living() as living:
        mean = model.loss(tokens.clone(), targets)
    assert mean.requires_grad
    return living.bytes_beside(model.parameters())


def wide(family: str) -> ModelConfig:
    """A model that is large enough for what is of the order of a block to outweigh the rest."""
    heads = {"n_heads": 4, "n_kv_heads": 2 if family in ("llama", "qwen3") else 4, "head_dim": 16}
    changes = heads | {"d_model": 64, "d_ff": 192, "n_layers": 6, "vocab_size": 64}
    return config(family, **changes, rotary_share=1.0, max_positions=1024)


@pytest.mark.parametrize("T", [64, 640])
@pytest.mark.parametrize("family", ["flm", "llama", "qwen3", "neox", "gpt2", "opt"])
def test_what_a_forward_pass_keeps(family: str, T: int) -> None:
    c, layout = wide(family), Layout(zero=0, micro_batch=2)
    work = Work(seq_len=T, batch_size=2, compute_bytes=4, cpu=True)
    assert kept_bytes(c, layout, work, 0) == pytest.approx(kept(c, layout, T, torch.float32), rel=0.02)


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_casts_of_weights_are_kept_as_well(family: str) -> None:
    c, layout = wide(family), Layout(zero=0, micro_batch=2)
    need = footprint(c, layout, Work(seq_len=64, batch_size=2, cpu=True), 0)
    got = kept(c, layout, 64, torch.bfloat16)
    assert need.working + need.activations == pytest.approx(got, rel=0.02)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("what", ["selective", "full"])
@pytest.mark.parametrize("family", ["flm", "llama"])
def test_what_recomputation_leaves(family: str, what: Recompute, every: int) -> None:
    c, layout = wide(family), Layout(zero=0, micro_batch=2, recompute=what, recompute_every=every)
    work = Work(seq_len=640, batch_size=2, compute_bytes=4, cpu=True)
    assert kept_bytes(c, layout, work, 0) == pytest.approx(kept(c, layout, 640, torch.float32), rel=0.05)


def test_a_gpt_block_without_dropout_keeps_32_bytes_a_token_and_unit() -> None:
    """34 s b h (2205.05198, equation 2 with attention recomputed) has two more for dropout masks."""
    c = config("flm", d_model=1024, n_heads=8, n_kv_heads=8, head_dim=128, d_ff=4096, n_layers=2)
    work = Work(seq_len=2048, batch_size=1)
    none = kept_bytes(c, Layout(), work, 0) - kept_bytes(c.with_(n_layers=1), Layout(), work, 0)
    statistics = 4 * 8 * 2048
    assert none == 32 * 2048 * 1024 + statistics
    full = Layout(recompute="full")
    once = kept_bytes(c, full, work, 0) - kept_bytes(c.with_(n_layers=1), full, work, 0)
    assert once == 2 * 2048 * 1024


def test_interleaving_keeps_the_published_factor_more() -> None:
    work = Work(seq_len=16, batch_size=64)
    for pp, v in ((2, 2), (4, 2), (4, 5), (8, 3)):
        assert in_flight(Layout(pp=pp), work, 0) == pp
        assert in_flight(Layout(pp=pp, interleave=v), work, 0) == pytest.approx(
            pp * (1 + (pp - 1) / (pp * v))
        )
    assert [in_flight(Layout(pp=4), work, p) for p in range(4)] == [4, 3, 2, 1]
    assert in_flight(Layout(pp=4), Work(seq_len=16, batch_size=2), 0) == 2


def test_constants_are_those_of_the_model() -> None:
    assert CHUNK_LOGITS == {"cpu": loss.CHUNK_ELEMENTS, "cuda": loss.CHUNK_ELEMENTS * loss.GPU_CHUNKS}
    assert CPU_SCORES == attention.EXPLICIT_MAX_T


@pytest.mark.parametrize(("preset", "world"), [("flm-101b", 192), ("tele-flm-1t", 896)])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_published_runs_fit_into_gpus_of_80_gib(preset: str, world: int, stage: int) -> None:
    recipe = load_recipe(preset)
    layout = choose_layout(recipe, stage, world)
    need = most_loaded(recipe.model_config_of(stage), layout, Work.of(recipe, stage))[1]
    assert layout.sequence_parallel
    assert 30 * 2**30 < need.total < 0.9 * 80 * 2**30
