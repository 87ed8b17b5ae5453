"""Weights in the layout in which the matrix kernels of a CPU read them, laid out once.

A matmul with the weights of a checkpoint lays them out anew every time, which for the few rows of generation
takes longer than the products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from growlm.model.decoder import Decoder, Linear, Mlp
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
    for module in list(decoder.modules()):
        fused = (
            isinstance(module, Mlp) and module.activation == "gelu_tanh"
        )  # with its activation, another kernel
        for name, child in list(module.named_children()):
            if isinstance(child, Linear) and not (fused and name in ("gate_proj", "up_proj")):
                setattr(module, name, Packed(child))
    decoder.split = PackedHead(decoder.head)
    return decoder


class Packed(nn.Module):
    """A Linear."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._weight, self._bias = _laid_out(linear.weight), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return _product(x, self._weight, self._bias)


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
