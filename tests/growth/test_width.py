"""Every width operator against its published formula, written out here in fp64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from growlm.growth.operators import Growth, plan_growth
from growlm.growth.width import WIDTH
from growlm.model.init import init_rows
from growlm.model.parameters import family_of, parameter_table
from growlm.recipe.shape import ModelConfig
from tests.growth.tools import certificate, exact_depths, grown, reachable, table
from tests.model.tiny import FAMILIES, IMPORTED, State, config, trained


def plan(c: ModelConfig, operator: str, seed: int = 0, **sizes: Any) -> tuple[Growth, State, State]:
    settings = {k: sizes.pop(k) for k in ("noise", "split", "shrink", "perturb") if k in sizes}
    growth = plan_growth(c, c.with_(**sizes), table(operator=operator, **settings), seed=seed)
    old = trained(c)
    return growth, old, grown(growth, old)


def moved(growth: Growth) -> float:
    old = trained(growth.old)
    return certificate(growth, old, grown(growth, old))["max_dlogit"]


# --- what the table of operators says, measured -------------------------------------------------------


def alone(c: ModelConfig, operator: str, axis: str) -> ModelConfig:
    """One axis grown, as far as the operator can."""
    multiple = operator in ("clone", "staged") or axis == "head_dim"
    return {
        "d_model": c.with_(d_model=c.d_model * 2 if multiple else c.d_model + 6),
        "heads": c.with_(n_heads=8, n_kv_heads=4) if multiple else c.with_(n_heads=6, n_kv_heads=3),
        "head_dim": c.with_(head_dim=2 * c.head_dim),
        "d_ff": c.with_(d_ff=2 * c.d_ff if multiple else c.d_ff + 7),
    }[axis]


GRADED = [(name, axis) for name, operator in WIDTH.items() for axis in operator.preserves if name != "ligo"]


@pytest.mark.parametrize(("operator", "axis"), GRADED)
@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_each_operator_preserves_what_it_says(operator: str, axis: str, family: str, tied: bool) -> None:
    c = config(family, tied=tied)
    if (operator, axis) == ("zero", "d_model") and family_of(c).norm == "layer":
        return  # refused: test_refused.py
    growth = plan_growth(c, alone(c, operator, axis), table(operator=operator, noise=0.1))
    assert growth.exact is (WIDTH[operator].preserves[axis] == "exact")
    change = moved(growth)
    assert change <= 1e-10 if growth.exact else change > 1e-4


@pytest.mark.parametrize(("family", "tied"), IMPORTED)
@pytest.mark.parametrize("operator", ["masked", "zero", "clone", "lemon", "staged"])
def test_exact_operators_are_exact_for_imported_families(family: str, tied: bool, operator: str) -> None:
    c = config(family, tied=tied)
    for depth in exact_depths(c):
        growth = plan_growth(c, reachable(c, operator), table(operator=operator, depth=depth))
        assert growth.exact
        assert moved(growth) <= 1e-10


@pytest.mark.parametrize("family", ["flm", "llama"])
@pytest.mark.parametrize("d_model", [17, 24, 31, 32, 33, 40, 48, 53])
def test_lemon_reaches_any_width(family: str, d_model: int) -> None:
    c = config(family)
    growth = plan_growth(
        c, c.with_(d_model=d_model, n_heads=10, n_kv_heads=5, d_ff=61), table(operator="lemon")
    )
    assert growth.exact
    assert moved(growth) <= 1e-10


# --- formulas ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["fpi", "net2net"])
def test_function_preserving_initialisation(operator: str) -> None:
    """W'[i, j] = W[g_out(i), g_in(j)] / C(g_in(j)), g the identity on old units (bert2BERT, eq. 2 and 3)."""
    growth, old, new = plan(config("llama", tied=False), operator, d_model=27, d_ff=41, noise=0.0)
    g_in, g_out = (growth.maps[axis].source for axis in ("ffn", "d_model"))
    assert g_in[:24].tolist() == list(range(24))
    assert set(g_in[24:]) <= set(range(24))
    name = "blocks.1.mlp.down_proj.weight"
    for i in range(27):
        for j in range(41):
            count = (g_in == g_in[j]).sum()
            torch.testing.assert_close(new[name][i, j], old[name][g_out[i], g_in[j]] / count)
    x = torch.randn(24, dtype=torch.float64)
    wide, narrow = new[name] @ x[g_in], old[name] @ x  # and so the layer computes copies of what it did
    torch.testing.assert_close(wide, narrow[g_out])
    head = new["lm_head.weight"]  # an untied head is a reader of the stream like any other
    count = torch.from_numpy((g_out[:, None] == g_out[None, :]).sum(0))
    torch.testing.assert_close(head, old["lm_head.weight"][:, g_out] / count)


def test_net2net_adds_noise_that_the_function_does_not_see() -> None:
    growth, old, new = plan(config("llama"), "net2net", d_ff=48, noise=0.1)
    name = "blocks.0.mlp.down_proj.weight"
    source = torch.from_numpy(growth.maps["ffn"].source)
    total = torch.zeros_like(old[name]).index_add_(1, source, new[name])
    torch.testing.assert_close(total, old[name])
    first = int(source[24])  # two copies of one unit, now different
    assert (new[name][:, 24] != new[name][:, first]).all()


def test_advanced_knowledge_initialisation() -> None:
    """The rows of copies come from the block above, with the same columns (bert2BERT, eq. 6)."""
    growth, old, new = plan(config("llama", n_layers=3), "aki", d_model=20, d_ff=30)
    rows, columns = (growth.maps[axis].source for axis in ("ffn", "d_model"))
    count = torch.from_numpy((columns[:, None] == columns[None, :]).sum(0))
    for layer, above in ((0, 1), (1, 2), (2, 2)):  # the last has none above
        name = "blocks.{}.mlp.up_proj.weight"
        expected = old[name.format(layer)][rows][:, columns] / count
        expected[24:] = (old[name.format(above)][rows][:, columns] / count)[24:]
        torch.testing.assert_close(new[name.format(layer)], expected)
    norm = "blocks.0.mlp_norm.weight"  # norms are expanded in place
    torch.testing.assert_close(new[norm], old[norm][columns])


def test_lemon_average_expansion_of_a_layer_norm() -> None:
    """LN'(x') is LN(x), repeated, and zero: x' repeats x and then holds its mean (LEMON, 4.2)."""
    c = config("flm", d_model=6)
    growth, old, new = plan(c, "lemon", d_model=15, split=0.4)
    x = torch.randn(5, 6, dtype=torch.float64)
    wide = torch.cat([x, x, x.mean(1, keepdim=True).expand(5, 3)], dim=1)
    name = "blocks.0.attn_norm"
    narrow = F.layer_norm(x, (6,), old[f"{name}.weight"], old[f"{name}.bias"], c.norm_eps)
    gain, bias = new[f"{name}.weight"], new[f"{name}.bias"]
    eta = math.sqrt(2 * 6 / 15)
    torch.testing.assert_close(gain[:12], eta * old[f"{name}.weight"].repeat(2))
    assert growth.new.norm_eps == pytest.approx(c.norm_eps * eta**2)
    y = F.layer_norm(wide, (15,), gain, bias, growth.new.norm_eps)
    torch.testing.assert_close(y[:, :12], narrow.repeat(1, 2), rtol=1e-12, atol=1e-12)
    assert y[:, 12:].abs().max() < 1e-12
    # what writes to the stream writes its mean there; what reads it is split 0.4 : 0.6
    o_proj, before = new["blocks.0.attn.o_proj.weight"], old["blocks.0.attn.o_proj.weight"]
    torch.testing.assert_close(o_proj[12:], before.mean(0, keepdim=True).expand(3, -1))
    q_proj, before = new["blocks.0.attn.q_proj.weight"], old["blocks.0.attn.q_proj.weight"]
    torch.testing.assert_close(q_proj[:, :6], 0.4 * before)
    torch.testing.assert_close(q_proj[:, 6:12], 0.6 * before)
    embedding = new["embedding.weight"]
    torch.testing.assert_close(embedding[:, 12:], old["embedding.weight"].mean(1, keepdim=True).expand(-1, 3))


def test_staged_training_puts_the_model_beside_itself() -> None:
    """W' = [[W, 0], [0, W]], vectors and embeddings twice, logits of a tied head halved (2203.06211, 3.1)."""
    c = config("llama")
    growth, old, new = plan(c, "staged", d_model=32, n_heads=8, n_kv_heads=4, d_ff=48)
    for name, p in parameter_table(c).items():
        two = 2 if p.axes[0] != "vocab" else 1
        expected = torch.block_diag(old[name], old[name]) if p.reads else torch.cat([old[name]] * two)
        expected = torch.cat([old[name], old[name]], dim=1) if p.role == "embedding" else expected
        assert torch.equal(new[name], expected), name
    assert growth.new.logit_mult == 0.5


@pytest.mark.parametrize(
    ("d_ff", "factor"), [(30, 1 / math.sqrt(1 + 3 * 0.25)), (48, 0.5), (72, 1 / 3), (60, 1 / 2.5)]
)
def test_norm_preserving_factor(d_ff: int, factor: float) -> None:
    """1 / sqrt(1 + 3c) up to a doubling, 1 / (1 + c) beyond, c = (d' - d) / d (SPARKLING, 3.2)."""
    growth, old, new = plan(config("llama"), "rms", d_ff=d_ff)
    name = "blocks.0.mlp.down_proj.weight"
    index = torch.arange(d_ff) % 24
    torch.testing.assert_close(new[name], old[name][:, index] * factor)
    assert growth.exact is (d_ff == 48)


@pytest.mark.parametrize("grown_to", [640, 768, 1024])
def test_norm_preserving_keeps_the_size_of_what_is_computed(grown_to: int) -> None:
    c = config("llama", d_ff=512, d_model=512, n_layers=1)
    growth, old, new = plan(c, "rms", d_ff=grown_to)
    x = torch.randn(256, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    name = "blocks.0.mlp.down_proj.weight"
    size: Any = lambda y: y.square().mean().sqrt()  # noqa: E731
    wide = x[:, torch.from_numpy(growth.maps["ffn"].source)]
    ratio = size(wide @ new[name].T) / size(x @ old[name].T)
    assert abs(ratio - 1) < 0.02


def test_asymmetric_state_is_zero_for_copies() -> None:
    """S' = [S, 0] (SPARKLING, 3.3); what stays follows the gradient's rule."""
    c = config("llama")
    growth, old, _ = plan(c, "rms", d_model=32, d_ff=48)
    m = grown(growth, old, "exp_avg")
    torch.testing.assert_close(
        m["blocks.0.mlp.up_proj.weight"][:24, :16], old["blocks.0.mlp.up_proj.weight"] / 2
    )
    assert not m["blocks.0.mlp.up_proj.weight"][24:].any()
    assert not m["blocks.0.mlp.up_proj.weight"][:, 16:].any()
    assert not m["embedding.weight"][:, 16:].any()


def test_shrink_and_perturb() -> None:
    """theta' = shrink * zero-padded theta + perturb * fresh (2411.07340); gains and biases as they were."""
    c = config("flm", tied=False)
    growth, old, new = plan(c, "shrink_perturb", seed=3, d_model=20, d_ff=30, shrink=0.4, perturb=0.7)
    for name, p in parameter_table(growth.new).items():
        padded = torch.zeros(p.shape, dtype=torch.float64)
        padded[tuple(slice(n) for n in old[name].shape)] = old[name]
        fresh = init_rows(p, 3, 0, p.shape[0]).double()
        if len(p.shape) > 1:
            expected = 0.4 * padded + 0.7 * fresh
        else:
            expected = torch.cat([old[name], fresh[len(old[name]) :]])
        torch.testing.assert_close(new[name], expected, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_noise_of_16_bit_weights_cancels_to_the_last_bit(dtype: torch.dtype) -> None:
    c = config("llama", d_ff=256, d_model=64)
    growth = plan_growth(c, c.with_(d_ff=512, d_model=128), table(operator="clone", noise=0.1))
    old = {name: (w + 0.01 * w.sign()).to(dtype) for name, w in trained(c).items()}  # fp16 underflows
    new = grown(growth, old)
    for name in ("blocks.0.mlp.down_proj.weight", "blocks.1.attn.q_proj.weight"):
        half = old[name].shape[1]
        first, second = new[name][: len(old[name]), :half], new[name][: len(old[name]), half:]
        assert first.dtype == dtype
        assert torch.equal(first.double() + second.double(), old[name].double())
        noise = (first.double() - second.double()) / 2
        size: Tensor = noise.square().mean().sqrt() / first.double().square().mean().sqrt()
        assert 0.08 < size < 0.105  # a little is cut off where a weight is smaller than its noise


@pytest.mark.parametrize("operator", ["lemon", "staged"])
def test_noise_in_16_bit_does_not_swap_unequal_copies(operator: str) -> None:
    c = config("llama", d_ff=256)
    growth = plan_growth(c, c.with_(d_ff=512, d_model=32), table(operator=operator, noise=0.1))
    wide = trained(c)
    exact, rounded = grown(growth, wide), grown(growth, {name: w.bfloat16() for name, w in wide.items()})
    for name in ("blocks.0.mlp.down_proj.weight", "blocks.1.attn.q_proj.weight"):
        error = (exact[name] - rounded[name].double()).abs().max() / exact[name].abs().max()
        assert error < 2**-7, name


def test_the_noise_has_the_signal_to_noise_ratio_it_says() -> None:
    """noise = 0.1 is 20 dB: 10 log10(signal power / noise power)."""
    c = config("llama", d_ff=256)
    growth, old, new = plan(c, "clone", d_ff=512, noise=0.1)
    name = "blocks.0.mlp.down_proj.weight"
    signal = old[name].repeat(1, 2) / 2
    power = signal.square().mean() / (new[name] - signal).square().mean()
    assert 10 * math.log10(power) == pytest.approx(20, abs=0.3)
    assert growth.exact
