"""Model families. A family is a table of parameters plus a few choices; adding one is adding a table here.

Slots name the *axes* of every parameter. The axes are

    vocab     token ids                      d_model   the residual stream
    q         n_heads * head_dim             kv        n_kv_heads * head_dim
    ffn       hidden units of the MLP        head_dim  one head; gains that all heads share
    position  learned positions

`reads` is the axis a parameter contracts over in the forward pass; growth scales along it.
`writes_residual` says that its output is added to the residual stream, `key` that it makes keys: a zero
there takes a unit out of every attention score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["embedding", "unembedding", "hidden", "bias", "gain"]


@dataclass(frozen=True)
class Slot:
    """One parameter of a family; `{i}` in the name stands for the layer."""

    name: str
    axes: tuple[str, ...]
    role: Role
    reads: str | None = None
    writes_residual: bool = False
    key: bool = False


@dataclass(frozen=True)
class Family:
    """A table of slots, and what the decoder computes with them.

    `parallel`: attention and MLP of a block read the same stream, x + attn(norm x) + mlp(norm' x).
    """

    slots: tuple[Slot, ...]
    norm: Literal["layer", "rms"]
    position: Literal["rope", "xpos", "learned"]
    activation: Literal["gelu_tanh", "gelu", "silu", "relu"]
    parallel: bool = False


def linear(name: str, out: str, reads: str, *, bias: bool, key: bool = False) -> list[Slot]:
    """A projection from axis `reads` to axis `out`: weight (out, reads) and, if asked, bias (out)."""
    writes = out == "d_model"
    slots = [Slot(f"{name}.weight", (out, reads), "hidden", reads, writes, key)]
    return [*slots, Slot(f"{name}.bias", (out,), "bias", None, writes, key)] if bias else slots


def norm(name: str, *, bias: bool) -> list[Slot]:
    """Gain and, for LayerNorm, bias over the residual stream."""
    slots = [Slot(f"{name}.weight", ("d_model",), "gain")]
    return [*slots, Slot(f"{name}.bias", ("d_model",), "bias")] if bias else slots


def decoder(
    *,
    gated: bool,
    norm_bias: bool,
    qkv_bias: bool,
    out_bias: bool,
    qk_norm: bool = False,
    learned_positions: bool = False,
) -> tuple[Slot, ...]:
    """The slots of a pre-norm decoder: embedding, blocks, final norm, head (unused when tied)."""
    block = "blocks.{i}."
    slots = [Slot("embedding.weight", ("vocab", "d_model"), "embedding", writes_residual=True)]
    if learned_positions:
        slots.append(Slot("position.weight", ("position", "d_model"), "embedding", writes_residual=True))
    slots += norm(block + "attn_norm", bias=norm_bias)
    slots += linear(block + "attn.q_proj", "q", "d_model", bias=qkv_bias)
    slots += linear(block + "attn.k_proj", "kv", "d_model", bias=qkv_bias, key=True)
    slots += linear(block + "attn.v_proj", "kv", "d_model", bias=qkv_bias)
    slots += linear(block + "attn.o_proj", "d_model", "q", bias=out_bias)
    if qk_norm:
        slots += [Slot(f"{block}attn.{x}_norm.weight", ("head_dim",), "gain") for x in "qk"]
    slots += norm(block + "mlp_norm", bias=norm_bias)
    if gated:
        slots += linear(block + "mlp.gate_proj", "ffn", "d_model", bias=out_bias)
    slots += linear(block + "mlp.up_proj", "ffn", "d_model", bias=out_bias)
    slots += linear(block + "mlp.down_proj", "d_model", "ffn", bias=out_bias)
    slots += norm("norm", bias=norm_bias)
    slots.append(Slot("lm_head.weight", ("vocab", "d_model"), "unembedding"))
    return tuple(slots)


_GPT = decoder(gated=False, norm_bias=True, qkv_bias=True, out_bias=True)
_GPT_LEARNED = decoder(gated=False, norm_bias=True, qkv_bias=True, out_bias=True, learned_positions=True)

FAMILIES: dict[str, Family] = {
    # FLM-101B (2309.03852): LayerNorm, biases, tanh GELU and xPos.
    "flm": Family(slots=_GPT, norm="layer", position="xpos", activation="gelu_tanh"),
    # Llama (2302.13971, 2307.09288), Mistral (2310.06825), SmolLM (2502.02737), Tele-FLM (2404.16645):
    # RMSNorm, SwiGLU, RoPE, grouped-query attention, no biases.
    "llama": Family(
        slots=decoder(gated=True, norm_bias=False, qkv_bias=False, out_bias=False),
        norm="rms",
        position="rope",
        activation="silu",
    ),
    # Qwen2 (2407.10671): Llama with biases on queries, keys and values.
    "qwen2": Family(
        slots=decoder(gated=True, norm_bias=False, qkv_bias=True, out_bias=False),
        norm="rms",
        position="rope",
        activation="silu",
    ),
    # Qwen3 (2505.09388): Llama with an RMSNorm of every head's queries and keys, before they are rotated.
    "qwen3": Family(
        slots=decoder(gated=True, norm_bias=False, qkv_bias=False, out_bias=False, qk_norm=True),
        norm="rms",
        position="rope",
        activation="silu",
    ),
    # GPT-2 (Radford et al. 2019).
    "gpt2": Family(slots=_GPT_LEARNED, norm="layer", position="learned", activation="gelu_tanh"),
    # GPT-NeoX (2204.06745) and Pythia (2304.01373): parallel branches, exact GELU, RoPE on part of a head.
    "neox": Family(slots=_GPT, norm="layer", position="rope", activation="gelu", parallel=True),
    # OPT (2205.01068).
    "opt": Family(slots=_GPT_LEARNED, norm="layer", position="learned", activation="relu"),
}
