"""Tensor and sequence parallelism: plain local tensors, explicit collectives (Megatron, 2205.05198).

Heads, hidden units and the vocabulary are divided among the ranks of a group. Between the layers that are
divided lies the residual stream: whole on every rank, or, under sequence parallelism, T / size positions on
each. `enter` and `leave` go from one to the other, and each one's backward pass is the other's forward:

                     whole stream                 sequence parallel
    enter    forward  nothing    backward  sum     forward  gather           backward  sum and scatter
    leave    forward  sum        backward  nothing forward  sum and scatter  backward  gather

Parameters that are not divided get the same gradient on every rank, except those in `sums_over_ranks`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from growlm.model.loss import head_logits
from growlm.model.parameters import Parameter
from growlm.model.split import Split
from growlm.parallel.vocabulary import vocabulary_cross_entropy

# torch 2.13 has new names for these two, and warns of the old ones.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class TensorParallel(Split):
    """The split of a model over the ranks of `group`."""

    def __init__(self, group: dist.ProcessGroup, *, sequence_parallel: bool) -> None:
        self.group, self.sequence_parallel = group, sequence_parallel
        self.rank, self.size = group.rank(), group.size()

    def enter(self, x: Tensor) -> Tensor:
        """(B, T / size, D) or (B, T, D) -> (B, T, D)."""
        return (_Gather if self.sequence_parallel else _Copy).apply(x, self.group)  # type: ignore[return-value]

    def leave(self, y: Tensor) -> Tensor:
        """Shares (B, T, D) -> their sum, (B, T / size, D) or (B, T, D)."""
        return (_Scatter if self.sequence_parallel else _Sum).apply(y, self.group)  # type: ignore[return-value]

    def lookup(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Every rank looks up the tokens that it has; the others' rows are zero in its share."""
        local = tokens - self.rank * weight.shape[0]
        elsewhere = (local < 0) | (local >= weight.shape[0])
        rows = F.embedding(local.masked_fill(elsewhere, 0), weight)
        return self.leave(rows.masked_fill(elsewhere[..., None], 0))

    def positions(self, table: Tensor) -> Tensor:
        """Rows of (T, D) for this rank's positions."""
        return table.chunk(self.size)[self.rank] if self.sequence_parallel else table

    def cross_entropy(
        self,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        *,
        mult: float,
        bias: Tensor | None,
        factors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The loss of a vocabulary in parts; the gradient of `hidden` is this rank's share of it."""
        return vocabulary_cross_entropy(hidden, weight, targets, mult, bias, factors, self.group)

    def logits_of(self, hidden: Tensor, weight: Tensor, ids: Tensor, mult: float) -> Tensor:
        """Each rank gives the logits of the rows that it has; the others' are zero in its share."""
        local = ids - self.rank * weight.shape[0]
        here = (local >= 0) & (local < weight.shape[0])
        rows = weight[local.masked_fill(~here, 0)] * here[:, None]
        return _Sum.apply(head_logits(hidden, rows, mult, None), self.group)  # type: ignore[return-value]

    def logits(self, hidden: Tensor, weight: Tensor, mult: float, bias: Tensor | None) -> Tensor:
        """(..., D) -> (..., V), gathered."""
        local = head_logits(hidden, weight, mult, bias).contiguous()
        parts = [torch.empty_like(local) for _ in range(self.size)]
        dist.all_gather(parts, local, group=self.group)
        return torch.cat(parts, dim=-1)

    def sums_over_ranks(self, parameter: Parameter) -> bool:
        """Whether each rank has only a share of the gradient: from its positions, or from its heads."""
        return parameter.tp_dim is None and (self.sequence_parallel or parameter.axes == ("head_dim",))


def _all_reduce(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = x.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total


def _gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """(B, T / size, D) -> (B, T, D)."""
    B, T, D = x.shape
    parts = x.new_empty(group.size() * B, T, D)
    all_gather(parts, x.contiguous(), group=group)
    return parts.view(-1, B, T, D).transpose(0, 1).reshape(B, -1, D)


def _scatter(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Shares (B, T, D) -> (B, T / size, D) of their sum."""
    B, T, D = x.shape
    size = group.size()
    parts = x.view(B, size, T // size, D).transpose(0, 1).contiguous()
    out = x.new_empty(B, T // size, D)
    reduce_scatter(out, parts.view(size * B, T // size, D), group=group)
    return out


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return _all_reduce(grad_outputs[0], ctx.group), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:  # noqa: ARG004
        return _all_reduce(x, group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grad_outputs[0], None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gather(x, group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return _scatter(grad_outputs[0].contiguous(), ctx.group), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _scatter(x.contiguous(), group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return _gather(grad_outputs[0], ctx.group), None
