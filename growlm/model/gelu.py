"""GELU (tanh form) of a linear layer; on a CPU in bf16 as one kernel, unless it is compiled.

torch's own kernel spends more time on the tanh than the matrix products around it take. oneDNN applies it
to the fp32 accumulators in passing; the pre-activation is not kept but made again in the backward pass.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """gelu(x weight^T + bias): x (..., in), weight (out, in), bias (out), all of one dtype -> (..., out)."""
    eager_on_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if x.dtype == torch.bfloat16 and eager_on_cpu and _has_kernel():
        return _FusedLinearGelu.apply(x, weight, bias)  # type: ignore[return-value]
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


@cache
def _has_kernel() -> bool:
    ops = torch.ops.mkldnn  # not a public interface: without these two the plain form does the work
    if not all(hasattr(ops, name) for name in ("_linear_pointwise", "_is_mkldnn_bf16_supported")):
        return False
    return torch.backends.mkldnn.is_available() and ops._is_mkldnn_bf16_supported()


class _FusedLinearGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight, bias = ctx.saved_tensors
        before = F.linear(x, weight, bias)
        grad = torch.ops.aten.gelu_backward(grad_outputs[0], before, approximate="tanh").flatten(0, -2)
        grad_x = (grad @ weight).view_as(x)
        return grad_x, grad.T @ x.flatten(0, -2), None if bias is None else grad.sum(0)
