"""Cross entropy with the vocabulary divided among ranks, in chunks of tokens: no rank ever holds V logits.

Two small all-reduces for each chunk: the largest logit, then the sum of exponentials with the target's logit.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from growlm.model.loss import chunked_loss, widened


def vocabulary_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    mult: float,
    bias: Tensor | None,
    factors: Tensor | None,
    group: dist.ProcessGroup,
) -> tuple[Tensor, Tensor]:
    """`cross_entropy` in nats, the same on every rank of `group`: the mean, and each token's loss (N).

    hidden (N, D) whole, weight (V / size, D) and bias (V / size) this rank's, targets (N) ids of the whole
    vocabulary. Backward gives this rank's share of the gradient of `hidden`.
    """
    local = targets - group.rank() * weight.shape[0]
    chunk = partial(_losses_then_gradients, mult=mult, bias=bias, group=group)
    return chunked_loss(hidden, weight, local, mult, factors, chunk)


def _losses_then_gradients(
    logits: Tensor, targets: Tensor, mult: float, bias: Tensor | None, group: dist.ProcessGroup
) -> Tensor:
    """The losses (N) of `logits` (N, V / size), which become their own gradients, softmax minus one-hot.

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
    return sums[:, 0].log() - sums[:, 1]
