"""Microsoft's `mup` as the oracle: the same groups, initialisation, readout and training (2203.03466).

`mup` says from two models of different width which axes of a tensor are wide, the multipliers follow from
that; here they follow from roles in a table. Its AdamW keeps one epsilon, so ours is as small as nothing.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Optimizer
from tests.model.tiny import NEEDS, batch

mup = pytest.importorskip("mup", reason="Microsoft's mup, the oracle, is not installed")

LR, DECAY, EPS = 3e-3, 0.1, 1e-30
FAMILIES = ("llama", "flm", "qwen2", "qwen3", "gpt2", "neox", "opt")
BASE = {"d_model": 16, "n_heads": 4, "n_kv_heads": 2, "d_ff": 40}
LAYERS = 2


def recipe(family: str, width: int, parametrization: str, **model: Any) -> Recipe:
    """A run of the base shape and then `width` times that."""
    stage = {"n_layers": LAYERS, "seq_len": 16, "batch_size": 2, "tokens": 32}
    sizes = {axis: size * width for axis, size in BASE.items()}
    table = {"family": family, "head_dim": 4, "vocab_size": 50, "tied": False, "init_std": 0.05}
    return Recipe.model_validate(
        {
            "name": "oracle",
            "model": table
            | NEEDS.get(family, {})
            | {"parametrization": parametrization, "output_mult": 2.0}
            | model,
            "data": {"path": "data", "mixture": {"en": 1}},
            "optim": {"lr": LR, "eps": EPS, "weight_decay": DECAY},
            "stages": [{"name": "base", **BASE, **stage}, {"name": "wide", **sizes, **stage}],
        }
    )


def of_width(family: str, width: int, parametrization: str = "mup", **model: Any) -> ModelConfig:
    """The model that is `width` times as wide as the base shape."""
    return recipe(family, width, parametrization, **model).model_config_of(1)


def with_infshapes(model: Decoder, family: str, **table: Any) -> Decoder:
    """The model with what `mup` knows of its axes, and with none of its values touched."""
    base, delta = (Decoder(of_width(family, width, **table)) for width in (1, 2))
    return mup.set_base_shapes(model, base, delta=delta, rescale_params=False)


def mu_adamw(model: Decoder) -> torch.optim.AdamW:
    """Their optimizer with our choice of what decays: matrices."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return mup.MuAdamW(groups, lr=LR, weight_decay=DECAY, eps=EPS, betas=(0.9, 0.95))


@pytest.mark.parametrize("parametrization", ["mup", "completep"])
@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_learning_rate_and_weight_decay_of_every_parameter(
    family: str, width: int, parametrization: str
) -> None:
    """At the base depth `completep` is muP too."""
    config = of_width(family, width, parametrization)
    model = with_infshapes(Decoder(config), family)
    names = {p: name for name, p in model.named_parameters()}
    theirs = {
        names[p]: (group["lr"], group["weight_decay"])
        for group in mu_adamw(model).param_groups
        for p in group["params"]
    }
    ours = {n: (LR * p.lr_mult, DECAY * p.wd_mult) for n, p in parameter_table(config).items()}
    assert ours.keys() == theirs.keys()
    for name, pair in ours.items():
        assert pair == pytest.approx(theirs[name], rel=1e-12), name


@pytest.mark.parametrize("width", [2, 8])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_initial_values_have_the_size_of_theirs(family: str, width: int) -> None:
    config = of_width(family, width)
    model = with_infshapes(Decoder(config), family)
    table = parameter_table(config)
    for name, tensor in model.named_parameters():
        p = table[name]
        if p.init != "normal":
            continue
        mup.init.normal_(tensor, std=config.init_std)
        writer = 1 / math.sqrt(2 * LAYERS) if p.role == "hidden" and p.writes_residual else 1.0
        error = 5 / math.sqrt(2 * p.numel)  # five of its standard errors
        assert p.std == pytest.approx(writer * tensor.std().item(), rel=error), name


@pytest.mark.parametrize("width", [1, 2, 8])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_logits_are_those_of_their_readout(family: str, width: int) -> None:
    """`MuReadout` divides what it reads by the width, as logit_mult does to what is read."""

    class Readout(nn.Module):
        def __init__(self, d_model: int) -> None:
            super().__init__()
            self.head = mup.MuReadout(d_model, 50, bias=False, output_mult=2.0)

    config = of_width(family, width)
    model = Decoder(config).init_weights(0)
    readout = Readout(config.d_model)
    base, delta = Readout(BASE["d_model"]), Readout(2 * BASE["d_model"])
    mup.set_base_shapes(readout, base, delta=delta, rescale_params=False)
    with torch.no_grad():
        readout.head.weight.copy_(model.head)
        hidden = model(batch(config)[0])
        torch.testing.assert_close(model.head_logits(hidden), readout.head(hidden))


def losses(model: Decoder, step: Any) -> list[float]:
    """Of five steps in fp64."""
    found = []
    for update in range(1, 6):
        model.zero_grad()
        loss = model.loss(*batch(model.config, seed=update))
        loss.backward()
        step(update)
        found.append(loss.item())
    return found


def double(config: ModelConfig) -> Decoder:
    return Decoder(config).init_weights(3).double()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_five_steps_are_those_of_their_optimizer(family: str, tied: bool) -> None:
    config = of_width(family, 3, tied=tied)
    model = double(config)
    optimizer = Optimizer.of(model, recipe(family, 3, "mup").optim, {})

    def our_step(update: int) -> None:
        grads: dict[str, Tensor] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        optimizer.step(grads, LR, update)

    their_model = with_infshapes(double(config), family, tied=tied)
    their_optimizer = mu_adamw(their_model)
    ours, theirs = losses(model, our_step), losses(their_model, lambda _: their_optimizer.step())
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert abs(ours[-1] - ours[0]) > 1e-3
