"""Weights in the layout in which the matrix kernels of a CPU read them, laid out once.

A matmul with the weights of a checkpoint lays them out anew every time, which for the few rows of generation
takes longer than the products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from growlm.model.decoder import ACTIVATIONS, Attention, Decoder, Linear, Mlp
from growlm.model.loss import widened
from growlm.model.split import Split

ROWS = 8
"""For which the layout is chosen; it serves any number."""


def pack(decoder: Decoder) -> Decoder:
    """The same decoder with its matrices laid out, if it is on a CPU that has kernels for them in its
    dtype: it can be read, and no longer be trained or saved."""
    if decoder.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return decoder
    if decoder.embedding.weight.dtype not in _dtypes():
        return decoder
    for block in decoder.blocks:
        _pack_attention(block.attn)
        _pack_mlp(block.mlp)
    decoder.split = PackedHead(decoder.head)
    return decoder


def _pack_attention(layer: Any) -> None:
    layer.joined = Packed(layer.q_proj, layer.k_proj, layer.v_proj)
    layer.o_proj = Packed(layer.o_proj)
    layer.q_proj = layer.k_proj = layer.v_proj = None
    layer.__class__ = PackedAttention


def _pack_mlp(layer: Any) -> None:
    layer.down_proj = Packed(layer.down_proj)
    if layer.activation == "gelu_tanh":  # has a kernel that makes the activation with the product
        return
    if layer.gate_proj is None:
        layer.up_proj = Packed(layer.up_proj)
        return
    layer.joined = Packed(layer.gate_proj, layer.up_proj)
    layer.gate_proj = layer.up_proj = None
    layer.__class__ = PackedGatedMlp


class Packed(nn.Module):
    """One or several Linears of the same input."""

    def __init__(self, *linears: Linear) -> None:
        super().__init__()
        weights: list[Tensor] = [linear.weight for linear in linears]
        biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
        assert len(biases) in (0, len(weights))
        self._weight = _laid_out(torch.cat(weights))
        self._bias = torch.cat(biases) if biases else None
        self.sizes = [len(linear.weight) for linear in linears]

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), of several one behind the other."""
        return _product(x, self._weight, self._bias)

    def each(self, x: Tensor) -> Sequence[Tensor]:
        """(..., in) -> (..., out) of every Linear."""
        return self(x).split(self.sizes, -1)


class PackedAttention(Attention):
    """Queries, keys and values by one product."""

    joined: Packed

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> queries (B, T, H*E), keys and values (B, T, K*E)."""
        q, k, v = self.joined.each(x)
        return q, k, v


class PackedGatedMlp(Mlp):
    """Gate and hidden units by one product."""

    joined: Packed

    def expand(self, x: Tensor) -> Tensor:
        """(B, T, D) -> hidden units (B, T, F)."""
        gate, up = self.joined.each(x)
        return ACTIVATIONS[self.activation](gate) * up


class PackedHead(Split):
    """The output matrix."""

    def __init__(self, head: Tensor) -> None:
        self._weight = _laid_out(head)

    def logits(self, hidden: Tensor, weight: Tensor, mult: float, bias: Tensor | None) -> Tensor:
        """Logits (..., V) in fp32; `weight` is what was laid out."""
        del weight
        return widened(_product(hidden, self._weight, None), mult, bias)


def _dtypes() -> tuple[torch.dtype, ...]:
    """That this CPU has kernels for: bf16 takes AVX-512 or its like."""
    ops: Any = torch.ops.mkldnn
    return (torch.float32, torch.bfloat16) if ops._is_mkldnn_bf16_supported() else (torch.float32,)


def _laid_out(weight: Tensor) -> Tensor:
    ops: Any = torch.ops.mkldnn
    return ops._reorder_linear_weight(weight.detach(), ROWS)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    ops: Any = torch.ops.mkldnn
    return ops._linear_pointwise(x, weight, bias, "none", [], "")
