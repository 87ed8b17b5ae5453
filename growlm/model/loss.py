"""LM head and cross entropy in chunks: B*T*V logits are never held (8k tokens x 100k ids are 3.3 GB)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22


def cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, mult: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """Mean negative log likelihood in nats, fp32 or wider.

    hidden (N, D) in the compute dtype, weight (V, D), targets (N); logits = mult * hidden weight^T +
    bias (V). Gradients are formed chunk by chunk in the forward pass, where the logits exist.
    """
    if not torch.is_grad_enabled():  # inside the function autograd would still ask for them
        hidden, weight = hidden.detach(), weight.detach()
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, mult, bias)  # type: ignore[assignment]
    return loss


def head_logits(hidden: Tensor, weight: Tensor, mult: float, bias: Tensor | None) -> Tensor:
    """Logits (N, V) in fp32 or wider."""
    logits = hidden @ weight.to(hidden.dtype).T
    wide = logits if logits.dtype == torch.float64 else logits.float()
    if mult != 1.0:
        wide = wide * mult
    return wide if bias is None else wide + bias.to(wide.dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, mult: float, bias: Tensor | None
    ) -> Tensor:
        N, V = hidden.shape[0], weight.shape[0]
        needs_grad = any(ctx.needs_input_grad[:2])
        head = weight.to(hidden.dtype)
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=wide, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = torch.zeros_like(weight) if needs_grad else None
        rows = max(1, CHUNK_ELEMENTS // V)
        for start in range(0, N, rows):
            h, y = hidden[start : start + rows], targets[start : start + rows, None]
            log_p = torch.log_softmax(head_logits(h, head, mult, bias), dim=-1)
            total -= log_p.gather(1, y).sum()
            if grad_hidden is not None and grad_weight is not None:
                grad = log_p.exp_()
                grad.scatter_add_(1, y, torch.full_like(y, -1, dtype=wide))
                grad = grad.mul_(mult / N).to(hidden.dtype)
                grad_hidden[start : start + rows] = grad @ head
                grad_weight += grad.T @ h
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
        return total / N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale, None, None, None
