"""The fused GELU is the plain one, to bf16 rounding, in value and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from growlm.model.gelu import linear_gelu


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 8e-3), (torch.float32, 1e-6)])
def test_equals_gelu_of_linear_in_fp64(with_bias: bool, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 5, 32), (48, 32), (48,), (3, 5, 48)]
    x, weight, bias, cotangent = (torch.randn(s, generator=generator).to(dtype) for s in shapes)
    results = []
    for wide in (torch.float64, dtype):
        inputs = [t.to(wide).requires_grad_() for t in ((x, weight, bias) if with_bias else (x, weight))]
        if wide == torch.float64:
            y = F.gelu(F.linear(*inputs), approximate="tanh")
        else:
            y = linear_gelu(inputs[0], inputs[1], inputs[2] if with_bias else None)
        results.append([y, *torch.autograd.grad(y, inputs, cotangent.to(wide))])
    for expected, actual in zip(*results, strict=True):
        assert actual.dtype == dtype
        assert actual.shape == expected.shape
        assert (actual.double() - expected).norm() <= tolerance * expected.norm()
