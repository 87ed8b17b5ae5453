"""Under muP a model duplicated in every width trains on exactly as the one it came from.

The multipliers of lr, weight decay, epsilon and logits are recomputed from the new width, the moments
grow by the rule; then the two loss curves are one (2203.03466, table 8). Every rule is needed: with any one
of them left out the curves part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch

from growlm.growth.maps import AxisMap
from growlm.growth.operators import Growth, plan_growth
from growlm.model.decoder import Decoder
from growlm.model.parameters import Parameter
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Optimizer
from tests.growth.tools import certificate, grown, table
from tests.growth.training import grown_state, train
from tests.model.tiny import FAMILIES, State, config, decoder

BOUND = 1e-9
BEFORE, AFTER = 10, 100
TIMES = 3


def settings(name: str) -> OptimTable:
    """An epsilon that is large enough to matter."""
    return OptimTable.model_validate({"name": name, "lr": 1e-2, "eps": 1e-3, "weight_decay": 0.1})


@dataclass(frozen=True)
class Small:
    """A small model some steps into its training, and the losses that followed."""

    config: ModelConfig
    weights: State
    moments: State
    losses: list[float]


@cache
def small(family: str, tied: bool, name: str = "adamw") -> Small:
    return run(config(family, tied=tied, mup_base_d_model=8, init_std=0.3, logit_mult=0.5), name)


def run(c: ModelConfig, name: str = "adamw") -> Small:
    model = decoder(c, {n: w.double() for n, w in Decoder(c).init_weights(1).state_dict().items()})
    optimizer = Optimizer.of(model, settings(name), {})
    train(model, optimizer, range(1, BEFORE + 1))
    weights = {n: w.clone() for n, w in model.state_dict().items()}
    moments = {n: m.clone() for n, m in optimizer.state_dict().items()}
    return Small(c, weights, moments, train(model, optimizer, range(BEFORE + 1, BEFORE + AFTER + 1)))


def duplication(c: ModelConfig) -> Growth:
    sizes = {axis: TIMES * getattr(c, axis) for axis in ("d_model", "n_heads", "n_kv_heads", "d_ff")}
    return plan_growth(c, c.with_(**sizes), table(operator="clone"))


def large(growth: Growth, source: Small, name: str = "adamw") -> tuple[Decoder, Optimizer]:
    """The duplicated model, its optimizer with the grown state."""
    model = decoder(growth.new, grown(growth, source.weights))
    optimizer = Optimizer.of(model, settings(name), {})
    optimizer.load_state_dict(grown_state(growth, source.moments))
    return model, optimizer


def parted(model: Decoder, optimizer: Optimizer, losses: list[float]) -> float:
    """Largest difference from the small model's losses."""
    curve = train(model, optimizer, range(BEFORE + 1, BEFORE + 1 + len(losses)))
    return max(abs(a - b) for a, b in zip(curve, losses, strict=True))


@pytest.mark.parametrize(("family", "tied"), [*FAMILIES, ("qwen3", True)])
def test_duplication_keeps_the_loss_curve(family: str, tied: bool) -> None:
    source = small(family, tied)
    growth = duplication(source.config)
    assert growth.new.logit_mult == source.config.logit_mult / TIMES
    assert abs(source.losses[-1] - source.losses[0]) > 1e-3
    assert parted(*large(growth, source), source.losses) <= BOUND


@pytest.mark.parametrize("axes", [("d_model",), ("n_heads", "n_kv_heads"), ("d_ff",)])
@pytest.mark.parametrize("family", ["llama", "flm"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_width_alone_has_its_own_multiplier(axes: tuple[str, ...], family: str, name: str) -> None:
    """The base sizes of q, kv and ffn: a model that is duplicated in one width only keeps its curve too."""
    c = config(family, mup_base_d_model=8, mup_base_hidden=(8.0, 4.0, 12.0), init_std=0.3, logit_mult=0.5)
    source = run(c, name)
    growth = plan_growth(c, c.with_(**{a: TIMES * getattr(c, a) for a in axes}), table(operator="clone"))
    assert parted(*large(growth, source, name), source.losses) <= BOUND


def records(optimizer: Optimizer, **changes: Callable[[Parameter], float]) -> None:
    """Break the multipliers of every parameter."""
    optimizer.table = {
        n: replace(p, **{field: of(p) for field, of in changes.items()}) for n, p in optimizer.table.items()
    }


def unscaled(growth: Growth) -> Growth:
    """The same copies, all of them with the whole of what they copy."""
    return replace(growth, maps={axis: AxisMap(m.source, np.ones(len(m))) for axis, m in growth.maps.items()})


def mutated(rule: str, growth: Growth, source: Small) -> tuple[Decoder, Optimizer]:
    if rule == "logit multiplier kept":
        growth = replace(growth, new=growth.new.with_(logit_mult=source.config.logit_mult))
    model, optimizer = large(growth, source)
    if rule == "learning rate not divided":
        records(optimizer, lr_mult=lambda p: p.lr_mult * (TIMES if p.role == "hidden" else 1))
    elif rule == "weight decay not multiplied":
        records(optimizer, wd_mult=lambda p: p.wd_mult / (TIMES if p.role == "hidden" else 1))
    elif rule == "epsilon not divided":
        records(optimizer, eps_mult=lambda p: p.eps_mult * TIMES)
    elif rule == "moments not scaled":
        optimizer.load_state_dict(grown_state(unscaled(growth), source.moments))
    elif rule == "moments reset":
        optimizer.load_state_dict({n: torch.zeros_like(m) for n, m in optimizer.state_dict().items()})
    return model, optimizer


RULES = (
    *("learning rate not divided", "weight decay not multiplied", "epsilon not divided"),
    *("moments not scaled", "moments reset", "logit multiplier kept"),
)


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("flm", False)])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_needed(rule: str, family: str, tied: bool) -> None:
    source = small(family, tied)
    growth = duplication(source.config)
    assert parted(*mutated(rule, growth, source), source.losses[:20]) > 1e4 * BOUND


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("flm", False)])
def test_muon_follows_too(family: str, tied: bool) -> None:
    source = small(family, tied, "muon")
    growth = duplication(source.config)
    assert parted(*large(growth, source, "muon"), source.losses) <= BOUND
    model, optimizer = large(growth, source, "muon")
    records(optimizer, muon=lambda p: p.muon * math.sqrt(TIMES))
    assert parted(model, optimizer, source.losses[:20]) > 1e4 * BOUND


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("operator", ["masked", "zero"])
def test_what_adds_nothing_keeps_the_logit_multiplier(operator: str, family: str, tied: bool) -> None:
    """New channels add 0 to the logits: dividing the multiplier as a duplication does would move them."""
    source = small(family, tied)
    c = source.config
    d_model = c.d_model if operator == "zero" and family == "flm" else 3 * c.d_model
    target = c.with_(d_model=d_model, n_heads=12, n_kv_heads=6, d_ff=72, logit_mult=c.logit_mult / 3)
    growth = plan_growth(c, target, table(operator=operator))
    assert growth.new.logit_mult == c.logit_mult
    found = certificate(growth, source.weights, grown(growth, source.weights))
    assert found["exact"]
    assert max(found["max_dlogit"], abs(found["dloss"])) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "flm"])
@pytest.mark.parametrize("depth", ["zero_block", "masked"])
def test_old_blocks_keep_their_branches_as_depth_grows_and_learn_at_their_share(
    depth: str, family: str
) -> None:
    """Of r times as many blocks each has 1/r of the multiplier (CompleteP, 2505.01618): growth multiplies the
    residual writers by r, and from then on what a branch adds changes at 1/r of the rate.

    New blocks, silent and not trained, leave what equals the old model with writers that learn at 1/r of
    their rate and decay at r times of it.
    """
    times, c = 3, config(family, init_std=0.3, mup_base_d_model=8, mup_base_n_layers=1, logit_mult=0.5)
    source = run(c)
    growth = plan_growth(c, c.with_(n_layers=times * c.n_layers), table(depth=depth))
    assert (c.residual_mult, growth.new.residual_mult, growth.branch_scale) == (1 / 2, 1 / 6, times)
    model, optimizer = large(growth, source)
    model.set_mask(growth.ramp, 0.0)
    old_blocks = {i for i, layer in enumerate(growth.layers) if not layer.new}
    optimizer.table = {n: p for n, p in optimizer.table.items() if p.layer is None or p.layer in old_blocks}
    for store in (optimizer.exp_avg, optimizer.exp_avg_sq):
        for name in store.keys() - optimizer.table.keys():
            del store[name]

    twin = decoder(c, source.weights)
    slower = Optimizer.of(twin, settings("adamw"), {})
    slower.load_state_dict(source.moments)

    def share(p: Parameter) -> float:
        return times if p.writes_residual and p.layer is not None else 1.0

    records(
        slower,
        lr_mult=lambda p: p.lr_mult / share(p),
        wd_mult=lambda p: p.wd_mult * share(p),
        eps_mult=lambda p: p.eps_mult * (1 if p.layer is None else share(p) / times),
    )
    updates = range(BEFORE + 1, BEFORE + 31)
    expected = train(twin, slower, updates)
    assert train(model, optimizer, updates) == pytest.approx(expected, abs=BOUND)
    assert abs(expected[-1] - source.losses[29]) > 1e-4
