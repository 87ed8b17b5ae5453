"""Masked norms and the ramp: 0 is the old model, 1 the plain one, and nothing jumps in between."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from growlm.model.decoder import Norm
from growlm.model.masks import Masks, Ramp, Ranges
from growlm.model.parameters import axis_sizes, parameter_table
from growlm.recipe.families import FAMILIES
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import IMPORTED, batch, config, decoder, trained

OLD, NEW = 10, 16
ALL = pytest.mark.parametrize("family", ["flm", "llama", *(family for family, _ in IMPORTED)])
EVERYTHING = Ramp(
    10, {"d_model": ((10, 16),), "q": ((8, 16),), "ffn": ((20, 24),), "vocab": ((45, 50),)}, (1,)
)


def norm(family: str, d_model: int, weight: Tensor, bias: Tensor) -> Norm:
    kind = FAMILIES[family].norm
    layer = Norm(parameter_table(config(family, d_model=d_model)), "norm", kind, 1e-3).double()
    layer.load_state_dict({"weight": weight, "bias": bias} if layer.bias is not None else {"weight": weight})
    return layer


def mask(value: float) -> Tensor:
    return torch.cat(
        (torch.ones(OLD, dtype=torch.float64), torch.full((NEW - OLD,), value, dtype=torch.float64))
    )


@pytest.mark.parametrize("family", ["flm", "llama"])
def test_masked_norm_at_zero_is_the_small_norm_and_at_one_the_plain_norm(family: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*s, NEW, generator=generator, dtype=torch.float64) for s in ((2, 5), (), ())
    )
    x[..., OLD:] *= 1e3  # garbage in the new units
    small, large = norm(family, OLD, weight[:OLD], bias[:OLD]), norm(family, NEW, weight, bias)
    hidden = large(x, mask(0.0))
    torch.testing.assert_close(hidden[..., :OLD], small(x[..., :OLD], None), rtol=0, atol=1e-14)
    assert not hidden[..., OLD:].any()
    torch.testing.assert_close(large(x, mask(1.0)), large(x, None), rtol=0, atol=1e-13)
    torch.testing.assert_close(large(x, mask(1 - 1e-9)), large(x, None), rtol=0, atol=1e-7)


@ALL
def test_the_end_of_a_ramp_is_no_jump(family: str) -> None:
    c = config(family)
    model = decoder(c)
    tokens, targets = batch(c)
    plain = model.loss(tokens, targets).item()
    distances = []
    for gap in (1e-2, 1e-4, 1e-6):
        model.set_mask(EVERYTHING, 1 - gap)
        distances.append(abs(model.loss(tokens, targets).item() - plain))
    assert distances[0] > 1e-5  # the mask does something
    assert distances[1] < distances[0] / 50
    assert distances[2] < distances[1] / 50
    model.set_mask(EVERYTHING, 1.0)
    assert model.masks is None
    assert model.loss(tokens, targets).item() == plain


@ALL
def test_behind_a_zero_mask_new_weights_have_no_effect_and_no_gradient(family: str) -> None:
    c = config(family, vocab_size=50)
    model = decoder(c)
    tokens, _ = batch(c.with_(vocab_size=45))
    model.set_mask(EVERYTHING, 0.0)
    before = model.logits(tokens)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("blocks.1."):
                p.mul_(7.0)
        model.embedding.weight[:, 10:] = 99.0
        model.embedding.weight[45:] = 99.0
    after = model.logits(tokens)
    torch.testing.assert_close(after[..., :45], before[..., :45], rtol=0, atol=1e-12)
    assert (after[..., 45:] == -torch.inf).all()
    model.loss(tokens, tokens).backward()
    grad = model.embedding.weight.grad
    assert grad is not None
    assert torch.isfinite(grad).all()
    assert not grad[:, 10:].any()
    assert not grad[45:].any()
    assert all(p.grad is not None and not p.grad.any() for p in model.blocks[1].parameters())


Units = dict[str, list[int]]


def old_units(c: ModelConfig, target: ModelConfig) -> Units:
    """Where the units of `c` lie in `target`: first, but rotary pairs (i, i + R/2) stay pairs."""
    before, after = len(c.rotary_exponents), len(target.rotary_exponents)
    turned = [i + half for half in (0, after) for i in range(before)]
    head = turned + [2 * after + i for i in range(c.head_dim - 2 * before)]
    group, size = target.queries_per_kv, target.head_dim
    queries = [g * group + r for g in range(c.n_kv_heads) for r in range(c.queries_per_kv)]
    first = {axis: list(range(size)) for axis, size in axis_sizes(c).items()}
    heads = {
        "q": [h * size + i for h in queries for i in head],
        "kv": [h * size + i for h in range(c.n_kv_heads) for i in head],
    }
    return first | heads | {"head_dim": head}


def new_ranges(size: int, old: list[int]) -> Ranges:
    return tuple((i, i + 1) for i in range(size) if i not in old)


def larger(c: ModelConfig) -> ModelConfig:
    """Every axis grown, also inside the heads."""
    exponents = (*c.rotary_exponents, 0.3, 0.8)
    return c.with_(
        d_model=21, d_ff=30, n_heads=9, n_kv_heads=3, head_dim=10, n_layers=3, vocab_size=57,
        rotary=exponents, attn_mult=(10 / c.head_dim) ** 0.5,
    )  # fmt: skip


@ALL
@pytest.mark.parametrize("tied", [True, False])
def test_behind_a_zero_mask_lies_the_model_before_growth(family: str, tied: bool) -> None:
    c = config(family, tied=tied, head_dim=4, norm_eps=1e-2)
    target = larger(c)
    units, sizes = old_units(c, target), axis_sizes(target)
    before, state = trained(c), trained(target, seed=1)
    for name, p in parameter_table(c).items():
        state[name][torch.meshgrid(*(torch.tensor(units[a]) for a in p.axes), indexing="ij")] = before[name]
    axes = {axis: new_ranges(sizes[axis], units[axis]) for axis in ("d_model", "q", "ffn", "vocab")}
    model = decoder(target, state)
    model.set_mask(Ramp(10, axes | {"score": axes["q"]}, (2,)), 0.0)
    tokens, _ = batch(c)
    expected, actual = decoder(c, before).logits(tokens), model.logits(tokens)
    torch.testing.assert_close(actual[..., : c.vocab_size], expected, rtol=0, atol=1e-12)
    model.set_mask(Ramp(10, axes, (2,)), 0.0)
    unmasked = model.logits(tokens)[..., : c.vocab_size]
    assert (unmasked - expected).abs().max() > 1e-3  # scores see the new units unless they are masked, too


def test_ramp_values_and_json() -> None:
    assert [Ramp(4, {}).value(step) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert Ramp(0, {}).value(0) == 1.0
    assert Ramp.from_dict(json.loads(json.dumps(EVERYTHING.to_dict()))) == EVERYTHING


def test_masks_say_nothing_about_axes_that_did_not_grow() -> None:
    masks = Masks(Ramp(4, {"ffn": ((1, 3),)}), 0.5, axis_sizes(config(d_ff=4)), torch.device("cpu"))
    assert (masks.d_model, masks.q, masks.logit_bias, masks.gate(0)) == (None, None, None, None)
    assert masks.ffn is not None
    assert masks.ffn.tolist() == [1.0, 0.5, 0.5, 1.0]
