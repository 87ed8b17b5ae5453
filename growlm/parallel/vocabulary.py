"""Cross entropy with the vocabulary divided among ranks, in chunks of tokens: no rank ever holds V logits.

Two small all-reduces for each chunk: the largest logit, then the sum of exponentials with the target's logit.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from growlm.model.loss import chunk_rows, widened


def vocabulary_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    mult: float,
    bias: Tensor | None,
    group: dist.ProcessGroup,
) -> Tensor:
    """Mean negative log likelihood in nats, the same on every rank of `group`.

    hidden (N, D) whole, weight (V / size, D) and bias (V / size) this rank's, targets (N) ids of the whole
    vocabulary. Backward gives this rank's share of the gradient of `hidden`.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    return _VocabularyCrossEntropy.apply(hidden, weight, targets, mult, bias, group)  # type: ignore[return-value]


class _VocabularyCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        mult: float,
        bias: Tensor | None,
        group: dist.ProcessGroup,
    ) -> Tensor:
        N, V = hidden.shape[0], weight.shape[0]
        needs_grad = any(ctx.needs_input_grad[:2])
        head, local = weight.to(hidden.dtype), targets - group.rank() * V
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = torch.zeros_like(weight) if needs_grad else None
        rows = chunk_rows(V, hidden.device)
        for start in range(0, N, rows):
            h = hidden[start : start + rows]
            logits = h @ head.T  # rows V
            total += _losses_then_gradients(logits, local[start : start + rows, None], mult, bias, group)
            if grad_hidden is not None and grad_weight is not None:
                torch.mm(logits, head, out=grad_hidden[start : start + rows])
                grad_weight += logits.T @ h
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
            ctx.scale = mult / N
        return total / N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0] * ctx.scale
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale, None, None, None, None


def _losses_then_gradients(
    logits: Tensor, targets: Tensor, mult: float, bias: Tensor | None, group: dist.ProcessGroup
) -> Tensor:
    """The summed loss of `logits` (N, V / size), which become their own gradients, softmax minus one-hot.

    `targets` (N, 1) count from this rank's first id; those outside its range are other ranks'.
    """
    wide = widened(logits, mult, bias)
    largest = wide.amax(1, keepdim=True)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
    here = (targets >= 0) & (targets < logits.shape[1])
    place = targets.masked_fill(~here, 0)
    target = (wide.gather(1, place) - largest).masked_fill(~here, 0)
    p = (wide - largest).exp_()
    sums = torch.cat((p.sum(1, keepdim=True), target), dim=1)  # N 2
    dist.all_reduce(sums, group=group)
    p.div_(sums[:, :1])
    logits.copy_(p.scatter_add_(1, place, here.to(p.dtype).neg_()))
    return (sums[:, 0].log() - sums[:, 1]).sum()
