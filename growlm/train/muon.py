"""Muon: momentum, made orthogonal (Keller Jordan, 2024; 2502.16982). Pure functions of tensors.

In two steps, since the first is of every element by itself, so that each rank does it on its piece, and the
second is of the whole matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic; they drive singular values from (0, 1] into about [0.7, 1.2] in five steps."""


def nesterov(gradient: Tensor, momentum: Tensor, decay: float, skip: Tensor | None = None) -> Tensor:
    """The Nesterov direction of a matrix or a piece of one; moves `momentum` on.

    Not where `skip` (0-dim, on the device) is 1: it is selected, not multiplied, since 0 times NaN is NaN.
    """
    if skip is None:
        momentum.lerp_(gradient, 1 - decay)
    else:
        momentum.copy_(torch.where(skip > 0, momentum, momentum.lerp(gradient, 1 - decay)))
    return gradient.lerp(momentum, decay)


def orthogonalized(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix (out, in) with the singular vectors of `matrix` and singular values near 1, by Newton and
    Schulz. No bias correction: the length of the momentum does not matter.

    In bf16 on a GPU, where that is many times faster and enough; on a CPU in the matrix's own precision.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)
