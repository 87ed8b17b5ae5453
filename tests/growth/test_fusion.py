"""Fused models against their parents: each in its own block, together the mean of their logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from growlm.errors import GrowthError
from growlm.growth.certify import certify, require
from growlm.growth.fusion import FusedWeights, certify_fusion, fused_config
from growlm.growth.operators import plan_growth
from growlm.growth.weights import MemoryWeights, Weights
from growlm.model.parameters import axis_sizes, parameter_table
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from tests.growth.tools import grown, table
from tests.model.tiny import FAMILIES, IMPORTED, State, batch, config, decoder, trained

FUSABLE = [(family, tied) for family, tied in FAMILIES + IMPORTED if family != "qwen3"]


def memory(c: ModelConfig, state: State) -> MemoryWeights:
    return MemoryWeights(c, state)


def whole(weights: Weights) -> State:
    return {name: weights.read(name) for name in parameter_table(weights.config)}


@pytest.mark.parametrize(("family", "tied"), FUSABLE)
def test_a_model_fused_with_itself_is_staged_growth_by_two(family: str, tied: bool) -> None:
    c = config(family, tied=tied)
    state = trained(c)
    fused = FusedWeights([memory(c, state)] * 2)
    target = c.with_(d_model=32, n_heads=8, n_kv_heads=4, d_ff=48)
    growth = plan_growth(c, target, table(operator="staged"))
    assert fused.config == growth.new
    for name, tensor in grown(growth, state).items():
        assert torch.equal(fused.read(name), tensor)


@pytest.mark.parametrize(("family", "tied"), FUSABLE)
def test_a_model_fused_with_itself_computes_the_same(family: str, tied: bool) -> None:
    c = config(family, tied=tied)
    state, (tokens, _) = trained(c), batch(c)
    fused = FusedWeights([memory(c, state)] * 3)
    with torch.no_grad():
        moved = decoder(fused.config, whole(fused)).logits(tokens) - decoder(c, state).logits(tokens)
    assert moved.abs().max() < 1e-12


def parents(family: str = "llama", **changes: Any) -> list[tuple[ModelConfig, State]]:
    """Two models of other weights and other widths."""
    one = config(family, **changes)
    other = one.with_(d_model=20, n_heads=2, n_kv_heads=1, d_ff=10)
    return [(one, trained(one, 0)), (other, trained(other, 1))]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_each_parent_in_its_block_and_zero_between(family: str) -> None:
    pair = parents(family, tied=False)
    fused = FusedWeights([memory(*p) for p in pair])
    first = axis_sizes(pair[0][0])
    for name, p in parameter_table(fused.config).items():
        tensor = fused.read(name)
        cut = [first[axis] if axis in ("d_model", "q", "kv", "ffn") else 0 for axis in p.axes]
        blocks = [
            tuple(slice(n or None) for n in cut),
            tuple(slice(n, None) for n in cut),
        ]
        for block, (_, state) in zip(blocks, pair, strict=True):
            assert torch.equal(tensor[block], state[name])
            tensor[block] = 0
        assert not tensor.any()


def test_rows_are_those_of_the_whole_tensor() -> None:
    fused = FusedWeights([memory(*p) for p in parents()])
    for name, p in parameter_table(fused.config).items():
        tensor = fused.read(name)
        for start in range(0, p.shape[0], 7):
            stop = min(start + 7, p.shape[0])
            assert torch.equal(fused.read(name, start, stop), tensor[start:stop])


def bypassed(c: ModelConfig, state: State) -> State:
    """The same model with norms that do not look at the stream's size.

    RMSNorm is g x / sqrt(ms(x) + eps). With eps = S^2 and gains S g it is g x / sqrt(ms(x) / S^2 + 1),
    which for large S is g x, whatever other units are beside x.
    """
    assert c.norm_eps >= 1e16
    return {n: t * c.norm_eps**0.5 if parameter_table(c)[n].role == "gain" else t for n, t in state.items()}


@pytest.mark.parametrize("tied", [True, False])
def test_without_norms_the_logits_are_the_mean(tied: bool) -> None:
    pair = [(c, bypassed(c, state)) for c, state in parents(tied=tied, norm_eps=1e16, logit_mult=0.7)]
    fused, (tokens, _) = FusedWeights([memory(*p) for p in pair]), batch(pair[0][0])
    with torch.no_grad():
        logits = decoder(fused.config, whole(fused)).logits(tokens)
        mean = sum(decoder(*p).logits(tokens) for p in pair) / 2
    torch.testing.assert_close(logits, mean, atol=1e-10, rtol=1e-10)


def test_the_certificate_compares_with_the_mean_of_the_parents() -> None:
    pair = parents(tied=False)
    fused, (tokens, targets) = FusedWeights([memory(*p) for p in pair]), batch(pair[0][0])
    found = certify_fusion(fused, tokens, targets)
    models = [decoder(*p) for p in pair]
    with torch.no_grad():
        mean = (models[0].logits(tokens) + models[1].logits(tokens)) / 2
        logits = decoder(fused.config, whole(fused)).logits(tokens)
        losses = [model.loss(tokens, targets).item() for model in models]
    for key, of in (("loss_mean", mean), ("loss_fused", logits)):
        expected = torch.nn.functional.cross_entropy(of.flatten(0, 1), targets.flatten()).item()
        assert found[key] == pytest.approx(expected, abs=1e-5)
    assert found["loss_parents"] == pytest.approx(losses, abs=1e-5)
    assert found["max_dlogit"] == pytest.approx((logits - mean).abs().max().item(), abs=1e-5)
    same = certify_fusion(FusedWeights([memory(*pair[0])] * 2), tokens, targets)
    assert same["max_dlogit"] < 1e-5


@pytest.mark.parametrize("operator", ["masked", "clone", "zero"])
def test_a_fused_model_grows_on(operator: str) -> None:
    pair = parents()
    fused = FusedWeights([memory(*p) for p in pair])
    c, old = fused.config, whole(fused)
    target = c.with_(d_model=2 * c.d_model, n_kv_heads=6, n_heads=12, n_layers=3)
    growth = plan_growth(c, target, table(operator=operator))
    require(certify(growth, old, grown(growth, old), *batch(c)))


def test_growth_into_the_fused_shape_changes_nothing() -> None:
    fused = FusedWeights([memory(*p) for p in parents()])
    growth = plan_growth(fused.config, fused.config, GrowthTable())  # pyright: ignore[reportCallIssue]
    old = whole(fused)
    assert growth.exact
    assert growth.new == fused.config
    assert all(torch.equal(tensor, old[name]) for name, tensor in grown(growth, old).items())


def test_mixed_precision_keeps_every_value() -> None:
    (c, state), (d, other) = parents()
    fused = FusedWeights([memory(c, {n: t.bfloat16() for n, t in state.items()}), memory(d, other)])
    assert fused.dtype("norm.weight") == torch.float64
    assert torch.equal(fused.read("norm.weight")[:16], state["norm.weight"].bfloat16().double())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_layers": 3}, "differ in n_layers"),
        ({"family": "qwen2", "vocab_size": 60}, "differ in family, vocab_size"),
        ({"n_kv_heads": 4}, "differ in n_heads / n_kv_heads"),
        ({"logit_mult": 0.5}, "differ in logit_mult"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(GrowthError, match=said):
        fused_config([config(), config().with_(**change)])


def test_norms_of_heads_cannot_be_fused() -> None:
    with pytest.raises(GrowthError, match="qwen3 cannot be fused"):
        fused_config([config("qwen3")] * 2)
