"""Model families. A family is a table of parameters plus three choices; adding one is adding a table here.

Slots name the *axes* of every parameter. The axes are

    vocab     token ids                      d_model   the residual stream
    q         n_heads * head_dim             kv        n_kv_heads * head_dim
    ffn       hidden units of the feed-forward layer

`reads` is the axis a parameter contracts over in the forward pass; growth scales along it.
`writes_residual` says that its output is added to the residual stream.
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


@dataclass(frozen=True)
class Family:
    """A table of slots, and what the decoder computes with them."""

    slots: tuple[Slot, ...]
    norm: Literal["layer", "rms"]
    position: Literal["rope", "xpos"]
    activation: Literal["gelu_tanh", "silu"]


def linear(name: str, out: str, reads: str, *, bias: bool) -> list[Slot]:
    """A projection from axis `reads` to axis `out`: weight (out, reads) and, if asked, bias (out)."""
    writes = out == "d_model"
    slots = [Slot(f"{name}.weight", (out, reads), "hidden", reads, writes)]
    return [*slots, Slot(f"{name}.bias", (out,), "bias", writes_residual=writes)] if bias else slots


def norm(name: str, *, bias: bool) -> list[Slot]:
    """Gain and, for LayerNorm, bias over the residual stream."""
    slots = [Slot(f"{name}.weight", ("d_model",), "gain")]
    return [*slots, Slot(f"{name}.bias", ("d_model",), "bias")] if bias else slots


def decoder(*, gated: bool, norm_bias: bool, qkv_bias: bool, out_bias: bool) -> tuple[Slot, ...]:
    """The slots of a pre-norm decoder: embedding, blocks, final norm, head (unused when tied)."""
    block = "blocks.{i}."
    slots = [Slot("embedding.weight", ("vocab", "d_model"), "embedding", writes_residual=True)]
    slots += norm(block + "attn_norm", bias=norm_bias)
    slots += linear(block + "attn.q_proj", "q", "d_model", bias=qkv_bias)
    slots += linear(block + "attn.k_proj", "kv", "d_model", bias=qkv_bias)
    slots += linear(block + "attn.v_proj", "kv", "d_model", bias=qkv_bias)
    slots += linear(block + "attn.o_proj", "d_model", "q", bias=out_bias)
    slots += norm(block + "mlp_norm", bias=norm_bias)
    if gated:
        slots += linear(block + "mlp.gate_proj", "ffn", "d_model", bias=out_bias)
    slots += linear(block + "mlp.up_proj", "ffn", "d_model", bias=out_bias)
    slots += linear(block + "mlp.down_proj", "d_model", "ffn", bias=out_bias)
    slots += norm("norm", bias=norm_bias)
    slots.append(Slot("lm_head.weight", ("vocab", "d_model"), "unembedding"))
    return tuple(slots)


FAMILIES: dict[str, Family] = {
    # FLM-101B: pre-LN GPT with biases, tanh GELU and xPos (2309.03852).
    "flm": Family(
        slots=decoder(gated=False, norm_bias=True, qkv_bias=True, out_bias=True),
        norm="layer",
        position="xpos",
        activation="gelu_tanh",
    ),
    # Llama (2302.13971, 2307.09288): RMSNorm, SwiGLU, RoPE, grouped-query attention, no biases.
    "llama": Family(
        slots=decoder(gated=True, norm_bias=False, qkv_bias=False, out_bias=False),
        norm="rms",
        position="rope",
        activation="silu",
    ),
}
