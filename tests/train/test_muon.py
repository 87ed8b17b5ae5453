"""Muon against its formula by singular values in fp64, against torch's, and in a whole run."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from growlm.model.parameters import parameter_table
from growlm.train.muon import COEFFICIENTS, nesterov, orthogonalized
from growlm.train.optimizer import Optimizer, state_kinds, stored_name
from growlm.train.supervisor import run
from tests.train.conftest import MakeRecipe
from tests.train.helpers import Outcome, killed, newest, outcome, records
from tests.train.test_optimizer import (
    BIRTHS,
    CONFIG,
    YOUNGEST,
    element_births,
    gradients,
    model_and_optimizer,
)

SHAPES = [(12, 12), (8, 20), (20, 8), (64, 16)]


def gaussian(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def muon_update(gradient: Tensor, momentum: Tensor, decay: float) -> Tensor:
    return 0.2 * max(gradient.shape) ** 0.5 * orthogonalized(nesterov(gradient, momentum, decay))


def quintic(s: np.ndarray) -> np.ndarray:
    """What five steps do to the singular values of a matrix of Frobenius norm 1."""
    a, b, c = COEFFICIENTS
    s = s / np.sqrt((s**2).sum())
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalization_keeps_singular_vectors_and_moves_the_values(shape: tuple[int, int]) -> None:
    matrix = gaussian(shape)
    u, s, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    expected = u @ np.diag(quintic(s)) @ vt
    np.testing.assert_allclose(orthogonalized(matrix).numpy(), expected, atol=1e-12)
    assert orthogonalized(torch.zeros(shape)).abs().max() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_the_size_of_an_update_follows_from_the_shape(shape: tuple[int, int]) -> None:
    """RMS = 0.2 sqrt(max) |orthogonal| / sqrt(out * in): 0.2, up to how far the values are from 1."""
    gradient = gaussian(shape)
    update = muon_update(gradient, torch.zeros_like(gradient), 0.95)
    values = quintic(np.linalg.svd(gradient.numpy(), compute_uv=False))
    rms = update.square().mean().sqrt().item()
    assert rms == pytest.approx(0.2 * math.sqrt(max(shape) * (values**2).sum() / math.prod(shape)), rel=1e-12)
    assert 0.7 * 0.2 < rms < 1.2 * 0.2


def test_it_is_torchs_muon_up_to_its_bf16() -> None:
    weight, twin = gaussian((24, 16)).float(), torch.nn.Parameter(gaussian((24, 16)).float())
    theirs = torch.optim.Muon([twin], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    momentum = torch.zeros_like(weight)
    for step in range(10):
        twin.grad = gaussian((24, 16), seed=step).float()
        theirs.step()
        weight.mul_(1 - 1e-2 * 0.1).sub_(muon_update(twin.grad, momentum, 0.95), alpha=1e-2)
    torch.testing.assert_close(weight, twin.detach(), rtol=0, atol=10 * 1e-2 * 0.2 * 2**-5)
    assert torch.equal(momentum, theirs.state[twin]["momentum_buffer"])


def test_hidden_matrices_go_by_muon_and_everything_else_by_adamw() -> None:
    model, optimizer = model_and_optimizer(CONFIG, {}, name="muon")
    twin, adamw = model_and_optimizer(CONFIG, {})
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    momentum = {n: torch.zeros_like(p) for n, p in before.items()}
    for update in range(1, 4):
        grads = gradients(model, update)
        for its in (optimizer, adamw):
            its.step(grads, 1e-2, update)
        for name, p in model.named_parameters():
            if parameter_table(CONFIG)[name].role == "hidden":
                change = muon_update(grads[name], momentum[name], 0.95)
                before[name].mul_(1 - 1e-2 * 0.1).sub_(change, alpha=1e-2)
                torch.testing.assert_close(p.detach(), before[name], msg=name)
            else:
                assert torch.equal(p, twin.get_parameter(name)), name


@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("ffn", [12, 48])
def test_updates_follow_the_spectral_condition_from_the_base_on(width: int, ffn: int) -> None:
    """At the base AdamW's size (2502.16982); from there sqrt(out / in), at unchanged rate and decay."""
    base = {"mup_base_d_model": 4, "mup_base_hidden": (8.0, 4.0, 12.0)}
    config = CONFIG.with_(d_model=width, d_ff=ffn, **base)
    model, optimizer = model_and_optimizer(config, {}, name="muon", weight_decay=0.3)
    for name, norm in (
        ("blocks.0.mlp.up_proj.weight", 0.2 * (12 * (ffn / 12) / (width / 4)) ** 0.5),
        ("blocks.0.mlp.down_proj.weight", 0.2 * (12 * (width / 4) / (ffn / 12)) ** 0.5),
    ):
        weight, grads = model.get_parameter(name), gradients(model, 1)
        old, direction = weight.detach().clone(), nesterov(grads[name], torch.zeros_like(weight), 0.95)
        optimizer.step(grads, 1e-2, 1)
        expected = old * (1 - 1e-2 * 0.3) - 1e-2 * norm * orthogonalized(direction)
        torch.testing.assert_close(weight.detach(), expected)
        model, optimizer = model_and_optimizer(config, {}, name="muon", weight_decay=0.3)


def test_a_rewarm_slows_the_new_part_and_nothing_else() -> None:
    moved = []
    for rewarm in (None, {YOUNGEST: 0.25}):
        model, optimizer = model_and_optimizer(CONFIG, BIRTHS, name="muon", weight_decay=0.0)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer.step(gradients(model, 6), 1e-2, 6, rewarm)
        moved.append({n: (p.detach() - before[n]).numpy() for n, p in model.named_parameters()})
    for name, full in moved[0].items():
        new = element_births(name, CONFIG, BIRTHS) == YOUNGEST
        np.testing.assert_array_equal(moved[1][name][~new], full[~new])
        np.testing.assert_allclose(moved[1][name][new], 0.25 * full[new], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_saved_state_tells_whose_it_is(name: str) -> None:
    model, optimizer = model_and_optimizer(CONFIG, {}, name=name)
    optimizer.step(gradients(model, 1), 1e-2, 1)
    state = optimizer.state_dict()
    whose = stored_name(state)
    kinds = {f"{kind}/{p.name}" for p in optimizer.table.values() for kind in state_kinds(p, whose)}
    assert state.keys() == kinds
    other = Optimizer.of(model, optimizer.settings, {})
    other.load_state_dict(state)
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in state.items())


def test_a_killed_run_with_growth_equals_the_straight_one(
    recipe: MakeRecipe, straight: Callable[..., Outcome], tmp_path: Path
) -> None:
    muon = ("optim.name=muon",)
    expected = straight(*muon)
    for death in ("train.after_step:kill@7", "checkpoint.write:kill@5", "train.after_step:kill@12"):
        killed(recipe(*muon), tmp_path, death)
    run(recipe(*muon), tmp_path)
    assert outcome(tmp_path) == expected
    assert all(r["identical"] for r in records(tmp_path, "verified"))
    saved = newest(tmp_path).manifest.tensors
    assert "exp_avg/blocks.0.attn.q_proj.weight" in saved
    assert "exp_avg_sq/blocks.0.attn.q_proj.weight" not in saved
