"""The multipliers of a parametrization reach every update: through schedule, resume, Muon and a whole run.

Each of these has lost them somewhere: warm-ups that set one rate for all groups (nanotron, DeepSpeed), a
minimum that is not divided (nanoLM), groups that a resume overwrites (Megatron), a base shape that a saved
model forgets or a second call applies twice (mup).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Optimizer
from growlm.train.schedule import learning_rate
from growlm.train.state import load_model
from growlm.train.supervisor import run
from tests.train.conftest import MakeRecipe
from tests.train.helpers import killed, newest, open_session, outcome, straight_run
from tests.train.test_optimizer import CONFIG, gradients, model_and_optimizer

WIDE = CONFIG.with_(
    mup_base_d_model=3, mup_base_hidden=(8.0, 4.0, 10.0), mup_base_n_layers=1, logit_mult=0.25
)
"""4, 2, 2 and 2 times as wide as its base shape, and 3 times as deep."""

STAGE = (
    "stages=[{name = 'only', d_model = 16, n_heads = 2, d_ff = 32, n_layers = 2,"
    " tokens = 3072, seq_len = 16, batch_size = 8}]",
    *("eval.every_tokens=1_000_000", "model.mup_base_d_model=4"),
    *("schedule.kind=cosine", "schedule.warmup_steps=6", "optim.eps=1e-3", "guard.spike_sigmas=1e9"),
)
"""24 steps of a model that is 4 times as wide as its base shape."""


def moved(config: ModelConfig, rate: float, **values: float | str) -> dict[str, Tensor]:
    """What one update with random gradients changes, in fp64."""
    model, optimizer = model_and_optimizer(config, {}, **values)
    model.double()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = Optimizer.of(model, optimizer.settings, {})
    optimizer.step({n: g.double() for n, g in gradients(model, 1).items()}, rate, 1)
    return {n: p.detach() - before[n] for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("kind", ["wsd", "cosine", "linear"])
def test_a_schedule_keeps_the_ratio_of_every_group(kind: str, name: str, recipe: MakeRecipe) -> None:
    """First step of the warm-up, peak and last step: one factor on all updates, and on all decays."""
    made = recipe(*STAGE, f"schedule.kind={kind}", "schedule.min_lr_ratio=0.1")
    rates = [learning_rate(made, 0, step) for step in range(24)]
    warm, peak, last = rates[0], max(rates), rates[-1]
    assert (warm, last) == pytest.approx((peak / 6, peak / 10), rel=0.02)
    changes = {rate: moved(WIDE, rate, name=name) for rate in (warm, peak, last)}
    for n, change in changes[peak].items():
        for rate in (warm, last):
            torch.testing.assert_close(changes[rate][n] / rate, change / peak, rtol=1e-9, atol=1e-12)


def test_every_parameter_moves_at_its_own_rate() -> None:
    """The first update of AdamW is the learning rate, whatever the gradient; of hidden matrices 1/m of it."""
    m = {"q_proj": 4, "k_proj": 4, "v_proj": 4, "o_proj": 2, "up_proj": 4, "down_proj": 2}
    for n, change in moved(WIDE, 1e-2, weight_decay=0.0, eps=1e-30).items():
        layer = n.split(".")[-2]
        rate = 1e-2 / (m[layer] if n.endswith("weight") and layer in m else 1)
        torch.testing.assert_close(change.abs(), torch.full_like(change, rate), rtol=1e-6, atol=0, msg=n)


@pytest.mark.parametrize("parametrization", ["sp", "mup", "completep"])
def test_decay_is_independent_of_the_width(parametrization: str, recipe: MakeRecipe) -> None:
    """Learning rate times decay is one number for all matrices at any size (2203.03466, B.3; mup PR 73)."""
    for index in range(4):
        config = recipe(f"model.parametrization={parametrization}").model_config_of(index)
        products = {p.lr_mult * p.wd_mult for p in parameter_table(config).values() if p.init == "normal"}
        assert products == {1.0}
        assert {p.wd_mult for p in parameter_table(config).values() if p.init != "normal"} == {0.0}


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_a_smaller_width_exponent_lets_the_decay_fall(exponent: float) -> None:
    """With zero gradients only the decay is left: rate * decay * m^(exponent - 1)."""
    for name in ("adamw", "muon"):
        values: dict[str, Any] = {"name": name, "wd_width_exp": exponent, "weight_decay": 0.5}
        model, optimizer = model_and_optimizer(WIDE, {}, **values)
        weight = model.get_parameter("blocks.0.mlp.up_proj.weight")
        before = weight.detach().clone()
        optimizer.step({n: torch.zeros_like(p) for n, p in model.named_parameters()}, 0.1, 1)
        expected = before * (1 - 0.1 * 0.5 * 4 ** (exponent - 1))
        torch.testing.assert_close(weight.detach(), expected)


def test_initial_values_follow_the_root_of_the_width_and_are_drawn_once() -> None:
    """Not sigma, not sigma / m (gpt-neox), and the same when they are drawn again (mup rescales twice)."""
    wide = WIDE.with_(d_model=96, n_heads=24, n_kv_heads=12, d_ff=160, init_std=0.05)
    model = Decoder(wide).init_weights(3)
    stds = {
        "embedding": 0.05,
        "blocks.1.attn.q_proj": 0.05 / math.sqrt(32),
        "blocks.1.attn.o_proj": 0.05 / math.sqrt(12) / math.sqrt(2),
        "blocks.1.mlp.down_proj": 0.05 / math.sqrt(16) / math.sqrt(2),
    }
    for name, std in stds.items():
        weight = model.get_parameter(f"{name}.weight")
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel())), name
    first = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.init_weights(3)
    assert all(torch.equal(p, first[n]) for n, p in model.named_parameters())


def test_a_stored_config_has_the_same_table() -> None:
    """What a checkpoint keeps of a model is its config as JSON; the multipliers are computed from it."""
    again = ModelConfig(**json.loads(json.dumps(WIDE.to_dict())))
    assert again == WIDE
    assert parameter_table(again) == parameter_table(WIDE)
    assert again.residual_mult == 1 / 3


# --- a whole run ----------------------------------------------------------------------------------------


def reference(recipe: Recipe, folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and last weights of a run by torch's AdamW, its groups made once and set by a `LambdaLR`."""
    config, optim = recipe.model_config_of(0), recipe.optim
    model = Decoder(config).init_weights(recipe.seed)
    parameters, losses = dict(model.named_parameters()), []
    groups = [
        {
            "params": [parameters[n]],
            "lr": optim.lr * p.lr_mult,
            "weight_decay": optim.weight_decay * p.wd_mult,
            "eps": optim.eps * p.eps_mult,
        }
        for n, p in parameter_table(config).items()
    ]
    adamw = torch.optim.AdamW(groups, betas=(optim.beta1, optim.beta2))
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda n: learning_rate(recipe, 0, n) / optim.lr)
    with open_session(recipe, folder) as session:
        for step in range(recipe.stages[0].steps):
            tokens, targets = (torch.from_numpy(x) for x in session.mixture.batch(0, step, np.arange(8))[:2])
            adamw.zero_grad()
            loss = model.loss(tokens, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), optim.grad_clip)
            adamw.step()
            schedule.step()
            losses.append(loss.item())
    return losses, {n: p.detach() for n, p in model.named_parameters()}


@pytest.mark.parametrize("parametrization", ["mup", "completep"])
def test_a_run_is_torchs_adamw_with_the_groups_of_the_table(
    parametrization: str, recipe: MakeRecipe, tmp_path: Path
) -> None:
    depth = ("model.mup_base_n_layers=1",) if parametrization == "completep" else ()
    made = recipe(*STAGE, *depth, f"model.parametrization={parametrization}")
    assert made.model_config_of(0).mup_base_d_model == 4
    run = straight_run(made, tmp_path / "run")
    losses, weights = reference(made, tmp_path / "reference")
    assert [step[3] for step in run["steps"]] == pytest.approx(losses, rel=1e-5)
    assert losses[0] - losses[-1] > 0.1
    for name, tensor in load_model(newest(tmp_path / "run")).state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_run_that_is_killed_keeps_them(name: str, recipe: MakeRecipe, tmp_path: Path) -> None:
    """In the warm-up, at the peak and in the decay."""
    made = recipe(*STAGE, "model.mup_base_n_layers=1", f"optim.name={name}")
    expected = straight_run(made, tmp_path / "straight")
    for step in (4, 7, 9):
        killed(made, tmp_path / "killed", f"train.after_step:kill@{step}")
    run(made, tmp_path / "killed")
    assert outcome(tmp_path / "killed") == expected
