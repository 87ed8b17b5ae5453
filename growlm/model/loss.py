"""LM head and cross entropy in chunks: B*T*V logits are never held (8k tokens x 100k ids are 3.3 GB)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 23  # logits held at a time, in the compute dtype
GPU_CHUNKS = 16  # a GPU has the memory; and every chunk is added to the whole gradient of the head
GPU_ROWS = 256  # its products come in tiles of so many rows
SIZES = 16  # of what is learnt of a batch: every other number of rows leaves a hole in the heap of its own
CACHED_ELEMENTS = 1 << 18  # logits in fp32 at a time on a CPU: 1 MiB stays in its second-level cache


ChunkLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Learning:
    """What of a batch is learnt, and how much it counts."""

    weights: Tensor
    """(B, T) fp32: factor on the loss of each target; its mean over all sequences of the step is 1."""
    group: Tensor
    """(B): objective of each sequence, counted from 0."""
    classes: tuple[int, int] | None = None
    """Targets that are told apart from one another only, not from the rest of the vocabulary."""

    def rows(self, rows: slice | Tensor) -> Learning:
        """Of some of the sequences."""
        return replace(self, weights=self.weights[rows], group=self.group[rows])

    def to(self, device: torch.device) -> Learning:
        """The same on a device, without waiting for what it computes."""
        weights, group = (t.to(device, non_blocking=True) for t in (self.weights, self.group))
        return replace(self, weights=weights, group=group)


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    mult: float = 1.0,
    bias: Tensor | None = None,
    factors: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean negative log likelihood in nats, fp32 or wider, and that of each token, (N), without gradient.

    hidden (N, D) in the compute dtype, weight (V, D), targets (N), factors (N) on each token's loss before
    the mean over N; logits = mult * hidden weight^T + bias (V). Gradients are formed chunk by chunk in the
    forward pass, where the logits exist.
    """
    chunk = partial(_losses_then_gradients, mult=mult, bias=bias)
    return chunked_loss(hidden, weight, targets, mult, factors, chunk)


def chunked_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    mult: float,
    factors: Tensor | None,
    losses_then_gradients: ChunkLoss,
) -> tuple[Tensor, Tensor]:
    """The mean over N tokens of factors times a loss of the logits hidden weight^T, and each token's loss;
    arguments as of `cross_entropy`. On a CPU tokens with factor 0 cost nothing; their loss is given as 0.

    `losses_then_gradients` gives the losses (rows) of a chunk of logits, (rows, V), and its targets,
    (rows, 1), and leaves in the logits their gradients divided by `mult`.
    """
    if not torch.is_grad_enabled():  # inside the function autograd would still ask for them
        hidden, weight = hidden.detach(), weight.detach()
    N = hidden.shape[0]
    kept = None
    if factors is not None and not hidden.is_cuda:  # a GPU would have to wait for their number
        kept = factors.nonzero().squeeze(1)
        chosen = torch.nn.functional.pad(kept, (0, -len(kept) % max(1, N // SIZES)))
        hidden, targets, factors = hidden[chosen], targets[chosen], factors[chosen]
        factors[len(kept) :] = 0
    mean, losses = _ChunkedLoss.apply(hidden, weight, targets, mult, factors, N, losses_then_gradients)  # type: ignore[misc]
    return mean, losses if kept is None else losses.new_zeros(N).index_copy_(0, kept, losses[: len(kept)])


def head_logits(hidden: Tensor, weight: Tensor, mult: float, bias: Tensor | None) -> Tensor:
    """Logits (N, V) in fp32 or wider."""
    return widened(hidden @ weight.to(hidden.dtype).T, mult, bias)


def widened(logits: Tensor, mult: float, bias: Tensor | None) -> Tensor:
    """mult * logits + bias, in fp32 or wider."""
    wide = logits.to(_wide(logits.dtype))
    if mult != 1.0:
        wide = wide * mult
    return wide if bias is None else wide + bias.to(wide.dtype)


def chunk_rows(V: int, device: torch.device) -> int:
    """Of how many tokens the logits are made at a time."""
    if device.type != "cuda":
        return max(1, CHUNK_ELEMENTS // V)
    rows = CHUNK_ELEMENTS * GPU_CHUNKS // V
    return max(1, rows - rows % GPU_ROWS if rows > GPU_ROWS else rows)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        mult: float,
        factors: Tensor | None,
        N: int,
        losses_then_gradients: ChunkLoss,
    ) -> tuple[Tensor, Tensor]:
        needs_grad = any(ctx.needs_input_grad[:2])
        head = weight.to(hidden.dtype)
        losses = torch.zeros(len(hidden), dtype=_wide(hidden.dtype), device=hidden.device)
        total = losses.new_zeros(())
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = torch.zeros_like(weight) if needs_grad else None
        rows = chunk_rows(weight.shape[0], hidden.device)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            h, y = hidden[part], targets[part, None]
            logits = h @ head.T  # rows V
            losses[part] = losses_then_gradients(logits, y)
            if factors is None:
                total += losses[part].sum()
            else:
                total += losses[part] @ factors[part].to(losses.dtype)
                logits *= factors[part, None]
            if grad_hidden is not None and grad_weight is not None:
                torch.mm(logits, head, out=grad_hidden[part])
                grad_weight += logits.T @ h
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
            ctx.scale = mult / N
        ctx.mark_non_differentiable(losses)
        return total / N, losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0] * ctx.scale
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale, None, None, None, None, None


def _losses_then_gradients(logits: Tensor, targets: Tensor, mult: float, bias: Tensor | None) -> Tensor:
    """The losses (N) of `logits` (N, V), which become their own gradients, softmax minus one-hot.

    A few rows at a time, so that on a CPU the wide copy of them never leaves the cache.
    """
    N, V = logits.shape
    rows = N if logits.is_cuda else max(1, CACHED_ELEMENTS // V)
    losses = []
    for part, y in zip(logits.split(rows), targets.split(rows), strict=True):
        wide = widened(part, mult, bias)
        p = torch.softmax(wide, dim=-1)
        log_sum = wide.amax(1) - p.amax(1).log()  # the largest p is at least 1/V: nothing underflows
        losses.append(log_sum - wide.gather(1, y).squeeze(1))
        part.copy_(p.scatter_add_(1, y, torch.full_like(y, -1, dtype=p.dtype)))
    return torch.cat(losses)
