"""The table says what the decoder is, in closed form and without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from growlm.errors import RecipeError
from growlm.model.decoder import Decoder
from growlm.model.parameters import n_parameters, parameter_table
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import FAMILIES, IMPORTED, config

FLM_101B = ModelConfig(
    family="flm", d_model=10240, n_heads=80, n_kv_heads=80, head_dim=128, d_ff=40960, n_layers=80,
    vocab_size=100352, mup_base_d_model=256,
)  # fmt: skip
LLAMA_2_7B = ModelConfig(
    family="llama", d_model=4096, n_heads=32, n_kv_heads=32, head_dim=128, d_ff=11008, n_layers=32,
    vocab_size=32000, tied=False,
)  # fmt: skip
GPT_2 = ModelConfig(
    family="gpt2", d_model=768, n_heads=12, n_kv_heads=12, head_dim=64, d_ff=3072, n_layers=12,
    vocab_size=50257, max_positions=1024,
)  # fmt: skip
PYTHIA_160M = GPT_2.with_(family="neox", vocab_size=50304, max_positions=None, tied=False, rotary_share=0.25)
OPT_125M = GPT_2.with_(family="opt", vocab_size=50272, max_positions=2050)
QWEN_2_0_5B = ModelConfig(
    family="qwen2", d_model=896, n_heads=14, n_kv_heads=2, head_dim=64, d_ff=4864, n_layers=24,
    vocab_size=151936,
)  # fmt: skip
QWEN_3_0_6B = QWEN_2_0_5B.with_(
    family="qwen3", d_model=1024, n_heads=16, n_kv_heads=8, head_dim=128, d_ff=3072, n_layers=28
)


@pytest.mark.parametrize(("family", "tied"), FAMILIES + IMPORTED)
def test_names_order_and_shapes_are_those_of_the_decoder(family: str, tied: bool) -> None:
    c = config(family, tied=tied)
    model = [(name, tuple(p.shape)) for name, p in Decoder(c).named_parameters()]
    assert sorted(model) == sorted((p.name, p.shape) for p in parameter_table(c).values())
    assert sum(p.numel() for p in Decoder(c).parameters()) == n_parameters(c)


def test_flm_follows_the_closed_form() -> None:
    for h, layers, vocab in ((16, 1, 50), (32, 3, 70)):
        c = config(
            "flm", d_model=h, n_heads=h // 4, n_kv_heads=h // 4, d_ff=4 * h, n_layers=layers, vocab_size=vocab
        )
        assert n_parameters(c) == layers * (12 * h * h + 13 * h) + vocab * h + 2 * h


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (FLM_101B, 101_701_570_560),
        (LLAMA_2_7B, 6_738_415_616),
        (GPT_2, 124_439_808),
        (PYTHIA_160M, 162_322_944),
        (OPT_125M, 125_239_296),
        (QWEN_2_0_5B, 494_032_768),
        (QWEN_3_0_6B, 596_049_920),
    ],
    ids=lambda x: getattr(x, "family", ""),
)
def test_published_models_have_their_published_size(model: ModelConfig, size: int) -> None:
    assert n_parameters(model) == size


def test_the_table_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from growlm.model.parameters import n_parameters\n"
        "from growlm.recipe.shape import ModelConfig\n"
        f"assert n_parameters({FLM_101B!r}) == 101_701_570_560\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("family", ["flm", "llama", "gpt2", "qwen3"])
def test_mup_multipliers_are_the_published_table(family: str) -> None:
    """std, lr, weight decay, eps per role for width multiplier m (2203.03466 table 8)."""
    m, sigma, layers = 4.0, 0.03, 3
    c = config(family, d_model=64, mup_base_d_model=16, init_std=sigma, n_layers=layers, tied=False)
    published = {
        "embedding": (sigma, 1, 1, 1 / m),
        "unembedding": (sigma, 1, 1, 1 / m),
        "hidden": (sigma / m**0.5, 1 / m, m, 1 / m),
        "gain": (0, 1, 0, 1 / m),
        "bias": (0, 1, 0, 1 / m),
    }
    roles = set()
    for p in parameter_table(c).values():
        std, lr, wd, eps = published[p.role]
        if p.axes == ("head_dim",):  # a sum over heads: its gradient keeps its size
            eps = 1.0
        if p.role == "hidden" and p.axes[0] == "d_model":
            std /= (2 * layers) ** 0.5  # residual writers, GPT-2
        assert (p.std, p.lr_mult, p.wd_mult, p.eps_mult) == pytest.approx((std, lr, wd, eps)), p.name
        roles.add(p.role)
    assert roles == published.keys() - ({"bias"} if family in ("llama", "qwen3") else set())


def test_without_a_base_width_every_multiplier_is_one() -> None:
    for p in parameter_table(config("flm", d_model=64)).values():
        assert (p.lr_mult, p.eps_mult) == (1, 1)
        assert p.wd_mult == (0 if p.role in ("gain", "bias") else 1), p.name


def test_what_writes_the_residual_stream_and_what_makes_keys() -> None:
    table = parameter_table(config("gpt2", n_layers=1, tied=False))
    writers = {p.name for p in table.values() if p.writes_residual}
    block = {f"blocks.0.{x}.{y}" for x in ("attn.o_proj", "mlp.down_proj") for y in ("weight", "bias")}
    assert writers == {"embedding.weight", "position.weight"} | block
    assert {p.name for p in table.values() if p.key} == {
        f"blocks.0.attn.k_proj.{y}" for y in ("weight", "bias")
    }


@pytest.mark.parametrize(("family", "tied"), FAMILIES + IMPORTED)
def test_a_model_without_blocks_is_embedding_norm_and_head(family: str, tied: bool) -> None:
    table = parameter_table(config(family, tied=tied, n_layers=0))
    assert {name.split(".")[0] for name in table} <= {"embedding", "position", "norm", "lm_head"}
    assert all(p.layer is None for p in table.values())


def test_an_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="flm, gpt2, llama, neox, opt, qwen2, qwen3"):
        parameter_table(config("gpt5"))
