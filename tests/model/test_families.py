"""Every family against an fp64 oracle of its published architecture that shares no code with the decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from growlm.errors import RecipeError
from growlm.model import attention as module
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import FAMILIES, config, decoder, trained

Array = NDArray[np.float64]
Arrays = dict[str, Array]

LAYER_NORM = ("flm", "gpt2", "neox", "opt")
LEARNED = ("gpt2", "opt")
ACTIVATION: dict[str, Callable[[Array], Array]] = {
    "flm": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "neox": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "opt": lambda x: np.maximum(x, 0),
    "llama": lambda x: x / (1 + np.exp(-x)),
}
ACTIVATION |= {"gpt2": ACTIVATION["flm"], "qwen2": ACTIVATION["llama"], "qwen3": ACTIVATION["llama"]}


def linear(w: Arrays, name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def rms(x: Array, gain: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * gain


def norm(c: ModelConfig, w: Arrays, name: str, x: Array) -> Array:
    if c.family not in LAYER_NORM:
        return rms(x, w[f"{name}.weight"], c.norm_eps)
    centred = x - x.mean(-1, keepdims=True)
    return rms(centred, w[f"{name}.weight"], c.norm_eps) + w[f"{name}.bias"]


def score(c: ModelConfig, exponents: Array, q: Array, k: Array, distance: int) -> float:
    """One query and one key (E); a rotated pair is one complex number."""
    pairs = len(exponents)
    turn = c.rope_theta**-exponents * distance
    decay = ((exponents + 0.4) / 1.4) ** (distance / c.xpos_scale_base) if c.family == "flm" else 1.0
    a, b = (x[:pairs] + 1j * x[pairs : 2 * pairs] for x in (q, k))
    rotated = (decay * a * b.conj() * np.exp(1j * turn)).real.sum()
    return (rotated + q[2 * pairs :] @ k[2 * pairs :]) * c.attn_mult / math.sqrt(c.head_dim)


def attention(c: ModelConfig, w: Arrays, name: str, x: Array, exponents: Array) -> Array:
    """One head, one query at a time."""
    T, E = len(x), c.head_dim
    q, k, v = (linear(w, f"{name}.{p}_proj", x).reshape(T, -1, E) for p in "qkv")
    if c.family == "qwen3":
        eps = c.norm_eps if c.head_norm_eps is None else c.head_norm_eps
        q, k = rms(q, w[f"{name}.q_norm.weight"], eps), rms(k, w[f"{name}.k_norm.weight"], eps)
    y = np.zeros_like(q)
    for head in range(c.n_heads):
        group = head // (c.n_heads // c.n_kv_heads)
        for n in range(T):
            p = np.exp([score(c, exponents, q[n, head], k[m, group], n - m) for m in range(n + 1)])
            y[n, head] = p @ v[: n + 1, group] / p.sum()
    return linear(w, f"{name}.o_proj", y.reshape(T, -1))


def mlp(c: ModelConfig, w: Arrays, name: str, x: Array) -> Array:
    act, up = ACTIVATION[c.family], linear(w, f"{name}.up_proj", x)
    if c.family in ("llama", "qwen2", "qwen3"):
        return linear(w, f"{name}.down_proj", act(linear(w, f"{name}.gate_proj", x)) * up)
    return linear(w, f"{name}.down_proj", act(up))


def oracle(c: ModelConfig, w: Arrays, tokens: NDArray[np.int64], exponents: Array) -> Array:
    """Logits (T, V)."""
    x = w["embedding.weight"][tokens] * c.input_mult
    if c.family in LEARNED:
        x = x + w["position.weight"][: len(tokens)]
    for i in range(c.n_layers):
        block = f"blocks.{i}"
        attended = x + attention(c, w, f"{block}.attn", norm(c, w, f"{block}.attn_norm", x), exponents)
        seen = x if c.family == "neox" else attended
        x = attended + mlp(c, w, f"{block}.mlp", norm(c, w, f"{block}.mlp_norm", seen))
    head = w["embedding.weight" if c.tied else "lm_head.weight"]
    return norm(c, w, "norm", x) @ head.T * c.logit_mult


CASES: list[tuple[str, dict[str, Any], list[float]]] = [
    *((family, {"tied": tied}, [0.0, 0.5]) for family, tied in FAMILIES),
    *((family, {}, [0.0, 0.5]) for family in ("qwen2", "qwen3")),
    *((family, {"attn_mult": 1.7, "input_mult": 3.0, "logit_mult": 0.5}, []) for family in LEARNED),
    ("neox", {"tied": False, "attn_mult": 0.6}, [0.0]),
    ("neox", {"head_dim": 16, "rotary_share": 0.25}, [0.0, 0.5]),
    ("neox", {"head_dim": 8, "rotary": (0.7,)}, [0.7]),
    ("qwen3", {"head_norm_eps": 0.5}, [0.0, 0.5]),
    ("flm", {"xpos_scale_base": 8.0, "attn_mult": 1.3}, [0.0, 0.5]),
    ("flm", {"xpos_scale_base": 8.0, "rotary": (0.9, 0.2)}, [0.9, 0.2]),
    ("llama", {"head_dim": 6, "rotary": (0.0, 0.5, 0.25)}, [0.0, 0.5, 0.25]),
    *((family, {"n_layers": 0}, []) for family in ("flm", "llama", "gpt2")),
]  # fmt: skip


@pytest.mark.parametrize("explicit_up_to", [0, 512], ids=["sdpa", "explicit"])
@pytest.mark.parametrize(("family", "changes", "exponents"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_logits_are_those_of_the_oracle(
    family: str, changes: dict[str, Any], exponents: list[float], explicit_up_to: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "EXPLICIT_MAX_T", explicit_up_to)
    c = config(family, **changes)
    state = trained(c)
    tokens = torch.randint(0, c.vocab_size, (1, 11), generator=torch.Generator().manual_seed(0))
    arrays = {name: t.numpy() for name, t in state.items()}
    expected = oracle(c, arrays, tokens[0].numpy(), np.array(exponents))
    actual = decoder(c, state).logits(tokens)[0].detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", LEARNED)
def test_positions_that_were_not_learned_are_refused(family: str) -> None:
    c = config(family, max_positions=8)
    tokens = torch.zeros(1, 9, dtype=torch.long)
    assert decoder(c).logits(tokens[:, :8]).shape == (1, 8, c.vocab_size)
    with pytest.raises(RecipeError, match="8 positions and was given 9 tokens"):
        decoder(c).logits(tokens)
