"""Pipeline parallelism by torch.distributed.pipelining: 1F1B, or interleaved with several parts on a rank.

Part k of the model is on pipeline rank k mod pp. Validation and sampling need no schedule: `relay` hands one
batch of any shape from part to part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

from growlm.model.decoder import Decoder
from growlm.model.loss import Learning
from growlm.parallel.mesh import Mesh


class Pipeline:
    """The parts of a model on this rank, and the schedule that moves micro-batches through all of them."""

    def __init__(self, parts: Sequence[Decoder], mesh: Mesh, micro_batches: int) -> None:
        self.parts, self.mesh, self.micro_batches = parts, mesh, micro_batches
        self.pp, self.total = mesh.layout.pp, mesh.layout.pp * mesh.layout.interleave
        self._schedule: Any = None
        self._learnt: Any = None  # of the batch that is under way

    def forward_backward(
        self,
        tokens: Tensor,
        targets: Tensor,
        learning: Learning | None,
        count: Callable[[Tensor, Learning], None],
    ) -> Tensor:
        """Gradients of the mean loss over the micro-batches of (B, T); the loss at the last part, else 0.

        `count` is told the losses of the tokens of each micro-batch, at the last part.
        """
        if self._schedule is None:
            self._schedule = self._make(tokens)
        self._learnt = targets, learning, count
        losses: list[Tensor] = []
        inputs = (tokens,) if self.parts[0].first else ()
        rows = torch.arange(len(tokens), device=tokens.device)
        kwargs: dict[str, Any] = {"target": rows, "losses": losses} if self.parts[-1].last else {}
        if self.parts[0].document_end is not None:
            kwargs["documents"] = tokens
        self._schedule.step(*inputs, **kwargs, return_outputs=False)
        return torch.stack(losses).sum() if losses else torch.zeros((), device=tokens.device)

    def relay(self, tokens: Tensor, finish: Callable[[Decoder, Tensor], Tensor]) -> Tensor:
        """What `finish` makes of the last part and its hidden states of tokens (B, T), on every rank.

        All of one shape: `finish` may be asked for it with hidden states on the meta device.
        """
        out = None
        for k, part in enumerate(self.parts):
            index = k * self.pp + self.mesh.place.pp
            x = tokens if part.first else self._receive(part, tokens.shape, index)
            out = part(x, documents=tokens)
            if not part.last:
                dist.send(out.contiguous(), self._peer(index + 1), group=self.mesh.group("pp"))
        last = self.parts[-1]
        result = finish(last, out) if last.last and out is not None else None
        return self._share(result, tokens.device)

    def _share(self, result: Tensor | None, device: torch.device) -> Tensor:
        """Broadcast from the last part: first the shape, then the values, in fp32 or wider."""
        source, group = self._peer(self.total - 1), self.mesh.group("pp")
        head = torch.zeros(2, dtype=torch.int64, device=device)
        if result is not None:
            head = torch.tensor([result.numel(), result.element_size()], device=device)
        dist.broadcast(head, source, group=group)
        size, width = head.tolist()
        if result is None:
            result = torch.empty(size, dtype=torch.float64 if width == 8 else torch.float32, device=device)
        flat = result.reshape(-1).contiguous()
        dist.broadcast(flat, source, group=group)
        return flat

    def _receive(self, part: Decoder, shape: torch.Size, index: int) -> Tensor:
        x = torch.empty(self._stream(part, shape), dtype=part.compute_dtype, device=part.device)
        dist.recv(x, self._peer(index - 1), group=self.mesh.group("pp"))
        return x

    def _peer(self, index: int) -> int:
        return self.mesh.peer(index % self.pp)

    def _stream(self, part: Decoder, shape: torch.Size) -> tuple[int, int, int]:
        """Shape of the residual stream between parts, for tokens (B, T)."""
        ranks = part.split.size if self.mesh.layout.sequence_parallel else 1
        return shape[0], shape[1] // ranks, part.config.d_model

    def _make(self, tokens: Tensor) -> Schedule1F1B | ScheduleInterleaved1F1B:
        """The schedule for batches like these; it knows all shapes: ranks need not ask each other."""
        micro = tokens[: len(tokens) // self.micro_batches]
        stages = [self._stage(k, part, micro) for k, part in enumerate(self.parts)]

        def loss(hidden: Tensor, rows: Tensor) -> Tensor:
            targets, learning, count = self._learnt
            learning = None if learning is None else learning.rows(rows)
            mean, losses = self.parts[-1].head_loss(hidden, targets[rows], learning)
            if learning is not None:
                count(losses, learning)
            return mean / self.micro_batches

        if len(stages) == 1:
            return Schedule1F1B(stages[0], self.micro_batches, loss, scale_grads=False)
        return ScheduleInterleaved1F1B(list(stages), self.micro_batches, loss, scale_grads=False)

    def _stage(self, k: int, part: Decoder, micro: Tensor) -> PipelineStage:
        def example(shape: tuple[int, ...]) -> Tensor:
            return torch.empty(shape, dtype=part.compute_dtype, device="meta", requires_grad=True)

        stream = self._stream(part, micro.shape)
        given = torch.empty_like(micro, device="meta") if part.first else example(stream)
        return PipelineStage(
            part,
            k * self.pp + self.mesh.place.pp,
            self.total,
            part.device,
            input_args=given,
            output_args=example(stream),
            group=self.mesh.group("pp"),
        )
