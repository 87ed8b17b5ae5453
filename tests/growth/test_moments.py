"""The rule that grows AdamW's moments is the rule of the gradient: checked against autograd, in fp64."""

from __future__ import annotations

import pytest
import torch

from growlm.growth.operators import Growth, plan_growth
from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Optimizer
from tests.growth.tools import all_growths, completep, everything, from_old, grown, reachable, table
from tests.growth.training import grown_state
from tests.model.tiny import FAMILIES, State, batch, config, decoder, gradients, trained

MUON = OptimTable.model_validate({"name": "muon", "lr": 1.0})


def both_models(growth: Growth) -> tuple[Decoder, Decoder]:
    """The old one, and the grown one at the start of its ramp."""
    old = trained(growth.old)
    new = decoder(growth.new, grown(growth, old))
    new.set_mask(growth.ramp, 0.0)
    return decoder(growth.old, old), new


def both_gradients(growth: Growth) -> tuple[State, State]:
    """Of the old model, and of the grown one at the start of its ramp."""
    tokens, targets = batch(growth.old)
    old, new = both_models(growth)
    return gradients(old, tokens, targets), gradients(new, tokens, targets)


def check(growth: Growth) -> None:
    old, new = both_gradients(growth)
    scale = max(g.abs().max().item() for g in old.values())
    first = grown(growth, old, "exp_avg")
    second = grown(growth, {name: g.square() for name, g in old.items()}, "exp_avg_sq")
    for name, p in parameter_table(growth.new).items():
        kept = from_old(growth, p)
        assert not first[name][~kept].any(), name
        assert not second[name][~kept].any(), name
        torch.testing.assert_close(
            first[name][kept].double(), new[name][kept], rtol=0, atol=1e-12 * scale, msg=name
        )
        torch.testing.assert_close(second[name], first[name].square(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_every_axis_at_once(family: str, tied: bool, based: bool) -> None:
    """But not where LayerNorm is padded with its mean (LEMON): its backward pass mixes in the new units.

    With a base of CompleteP every branch shrinks as blocks are added, and its writers make up for it.
    """
    c = config(family, tied=tied, logit_mult=0.5, input_mult=2.0)
    for growth in all_growths(completep(c) if based else c):
        assert (growth.branch_scale != 1) == (based and growth.new.n_layers > growth.old.n_layers)
        if not (growth.pads == "mean" and growth.maps["d_model"].is_new.any()):
            check(growth)


@pytest.mark.parametrize("depth", ["stack", "interpose"])
@pytest.mark.parametrize("family", ["flm", "llama"])
def test_of_doubled_blocks_under_completep_moments_halve_as_gradients_do(family: str, depth: str) -> None:
    """A block and its copy, each with half the residual multiplier; nearly so, where blocks add little."""
    c = completep(config(family, n_layers=4))
    growth = plan_growth(c, c.with_(n_layers=8), table(depth=depth))
    small = {n: w if "norm" in n or "embed" in n else 0.1 * w for n, w in trained(c).items()}
    tokens, targets = batch(c)
    old = gradients(decoder(c, small), tokens, targets)
    new = gradients(decoder(growth.new, grown(growth, small)), tokens, targets)
    expected = grown(growth, old, "exp_avg")
    for name, p in parameter_table(growth.new).items():
        if p.role == "hidden":
            ratio = float((new[name] * expected[name]).sum() / expected[name].square().sum())
            assert ratio == pytest.approx(1, abs=0.1), name


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("operator", ["masked", "zero", "clone"])
def test_muons_momentum_follows_the_gradient(operator: str, family: str, tied: bool) -> None:
    """After one step from nothing it is (1 - decay) times the gradient, in the old and in the grown model."""
    c = config(family, tied=tied)
    growth = plan_growth(c, reachable(c, operator), table(operator=operator))
    momenta = []
    for model, gradient in zip(both_models(growth), both_gradients(growth), strict=True):
        optimizer = Optimizer.of(model, MUON, {})
        optimizer.step(gradient, 0.0, 1)
        momenta.append(optimizer.state_dict())
    first = grown_state(growth, momenta[0])
    assert first.keys() == momenta[1].keys()
    scale = max(m.abs().max().item() for m in momenta[0].values())
    for name, p in parameter_table(growth.new).items():
        if p.role == "hidden":
            kept = from_old(growth, p)
            expected = momenta[1][f"exp_avg/{name}"][kept]
            torch.testing.assert_close(
                first[f"exp_avg/{name}"][kept], expected, rtol=0, atol=1e-12 * scale, msg=name
            )


def one_axis(c: ModelConfig) -> list[ModelConfig]:
    return [
        c.with_(d_model=48), c.with_(n_heads=6, n_kv_heads=3), c.with_(n_heads=8), c.with_(d_ff=60),
        c.with_(n_layers=5), c.with_(vocab_size=61),
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["flm", "llama"])
@pytest.mark.parametrize("operator", ["masked", "zero", "clone"])
def test_every_axis_alone(family: str, operator: str) -> None:
    c = config(family)
    for target in one_axis(c):
        if not (operator == "zero" and family == "flm" and target.d_model > c.d_model):
            check(plan_growth(c, target, table(operator=operator)))


@pytest.mark.parametrize("family", ["flm", "llama"])
def test_unequal_split_of_heads_and_ffn(family: str) -> None:
    """Shares of d_model must be equal for the rule: a norm mixes the gradients of its units."""
    c = config(family)
    check(plan_growth(c, c.with_(n_heads=12, n_kv_heads=4, d_ff=48), table(operator="clone", split=0.3)))


def test_what_learns_first() -> None:
    """Masked: nothing new has a gradient. zero and clone: it has (no dead start)."""
    c = config("llama", tied=False)
    for operator, learns in (("masked", False), ("zero", True), ("clone", True)):
        target = c.with_(d_model=32, d_ff=48)
        growth = plan_growth(c, target, table(operator=operator))
        _, new = both_gradients(growth)
        fresh = torch.cat(
            [
                new["embedding.weight"][:, 16:].flatten(),
                new["blocks.0.mlp.down_proj.weight"][:, 24:].flatten(),
            ]
        )
        assert bool(fresh.any()) is learns, operator


def test_reset_starts_every_moment_from_zero() -> None:
    c = config("flm")
    growth = plan_growth(c, everything(c, multiple=True), table(operator="clone", moments="reset"))
    for kind in ("exp_avg", "exp_avg_sq"):
        assert not any(m.any() for m in grown(growth, trained(c), kind).values())
