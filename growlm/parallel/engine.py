"""The model of a stage over all ranks of its layout: what the training loop works with.

The one order in which the parallelisms are put together:

    1. the table is cut: layers by pipeline, heads, hidden units and vocabulary by tensor parallelism
    2. blocks recompute their activations     (inside what is compiled, so that both see the same graph)
    3. blocks are compiled                    (inside what is sharded: FSDP's hooks stay outside the graph)
    4. blocks, then the rest, are sharded     (rows of the local tensors, over data-parallel ranks)
    5. parts become stages of the pipeline

FSDP2 and the pipeline take a second and a half to import; one process does without them. Each rank holds a
rectangle of every tensor (growlm/plan/pieces.py). One process is the layout of one rank:
the same code, and no communication.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from growlm.model.decoder import Decoder
from growlm.model.loss import Learning
from growlm.model.masks import Ramp
from growlm.model.parameters import parameter_table
from growlm.model.split import WHOLE, Split
from growlm.parallel.compile import as_written, compile_blocks
from growlm.parallel.mesh import Mesh
from growlm.parallel.recompute import recompute
from growlm.parallel.tensor import TensorParallel
from growlm.parallel.tree import TreeSum, sum_over_ranks
from growlm.plan.layout import Layout, is_owner, pieces_of
from growlm.plan.pieces import Piece
from growlm.recipe.objectives import OBJECTIVES
from growlm.recipe.shape import ModelConfig

if TYPE_CHECKING:
    from growlm.parallel.pipeline import Pipeline


class Engine:
    """A model laid out over ranks; its parameters are empty until `fill`."""

    def __init__(
        self,
        config: ModelConfig,
        layout: Layout,
        rank: int,
        device: torch.device,
        dtype: torch.dtype,
        micro_batches: int,
        *,
        deterministic: bool = False,
    ) -> None:
        """`micro_batches`: of one step, on this rank. Every rank must call this at the same time."""
        self.config, self.layout, self.device = config, layout, device
        self.micro_batches, self.deterministic = micro_batches, deterministic
        self.group_losses = torch.zeros(len(OBJECTIVES), dtype=torch.float64)
        """Of the last batch with `Learning`, by group: summed loss of what was learnt, over all ranks."""
        self.mesh = Mesh.of(layout, rank, "cuda" if device.type == "cuda" else "cpu")
        self.split = _split(self.mesh)
        self.parts = [self._build(layers, dtype) for layers in layout.parts(config, self.mesh.place.pp)]
        self.pipeline = _pipeline(self.parts, self.mesh, micro_batches) if layout.pp > 1 else None
        self._parameters = {n: p for part in self.parts for n, p in part.named_parameters()}
        self.pieces: dict[str, Piece] = pieces_of(config, layout, rank)
        self.parameters: dict[str, Tensor] = {n: _local(self._parameters[n]) for n in self.pieces}
        self._owned = [n for n in self.pieces if is_owner(config, layout, n, rank)]

    @property
    def model(self) -> Decoder:
        """The model, where one rank has all of it."""
        (part,) = self.parts
        return part

    def sequences(self, batch_size: int) -> list[int]:
        """Which sequences of a step this rank trains on, in that order."""
        return self.layout.sequences(self.mesh.dp_rank, batch_size)

    @torch.no_grad()
    def fill(self, read: Callable[[str, Piece], Tensor]) -> None:
        """Give every parameter its values; `read` gives a piece of a tensor."""
        for name, parameter in self.parameters.items():
            parameter.copy_(read(name, self.pieces[name]))

    def gather(self, name: str, piece: Tensor) -> Tensor:
        """All of a matrix that is divided among ranks, from each one's piece; the same on all of them."""
        whole = piece.new_zeros(parameter_table(self.config)[name].shape)
        whole[self.pieces[name].slices] = piece
        for dimension, size in (("shard", self.layout.shards), ("tp", self.layout.tp)):
            if size > 1:
                dist.all_reduce(whole, group=self.mesh.group(dimension))
        return whole

    def set_mask(self, ramp: Ramp | None, value: float) -> None:
        """Put the new units of a growth behind `value`; None or 1 removes every mask."""
        for part in self.parts:
            part.set_mask(ramp, value)

    def keep_documents_apart(self, end: int | None) -> None:
        """Let attention see its own document only; `end` is the token that ends one. None: all before it."""
        for part in self.parts:
            part.document_end = end

    def forward_backward(
        self, tokens: Tensor, targets: Tensor, learning: Learning | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the mean loss over the batch, of which (B, T) is this rank's share, by micro-batches;
        each target's loss times its weight in `learning`.

        Returns the loss and the norm of the gradient over all ranks, fp64 scalars; nothing waits for them.
        """
        self.group_losses = torch.zeros(len(OBJECTIVES), dtype=torch.float64, device=self.device)
        if self.deterministic:
            share = self._in_a_tree(tokens, targets, learning)
        elif self.pipeline:
            share = self.pipeline.forward_backward(tokens, targets, learning, self._count) / self.layout.dp
        else:
            share = self._in_sequence(tokens, targets, learning) / self.layout.dp
        self._share_gradients()
        if self.split.rank != 0:
            share = torch.zeros_like(share)
            self.group_losses.zero_()
        groups = self.group_losses[:0] if learning is None else self.group_losses
        found = torch.cat((torch.stack((share.double(), self._squares())), groups))
        if self.layout.world > 1:
            dist.all_reduce(found)
        groups.copy_(found[2:])
        return found[0], found[1].sqrt()

    @property
    def grads(self) -> dict[str, Tensor]:
        """The gradients of this rank's pieces."""
        grads = {name: self._parameters[name].grad for name in self.pieces}
        return {name: _local(grad) for name, grad in grads.items() if grad is not None}

    @torch.no_grad()
    def scale_grads(self, factor: Tensor) -> None:
        """Multiply all gradients by a number that is on the device."""
        grads = [grad for grad in self.grads.values() if grad.numel()]
        if grads:
            torch._foreach_mul_(grads, factor)  # pyright: ignore[reportPrivateImportUsage]

    def zero_grad(self) -> None:
        """Let go of all gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def token_losses(self, tokens: Tensor, targets: Tensor, rows: int) -> Tensor:
        """Loss of each target (N, T), fp64, the same on all ranks; computed `rows` sequences at a time,
        spread over data-parallel ranks."""
        losses = lambda part, hidden, mine: part.head_loss(hidden, targets[mine])[1]  # noqa: E731
        return self._over_ranks(tokens, rows, losses)[..., 0]

    @torch.no_grad()
    def token_scores(self, tokens: Tensor, targets: Tensor, wanted: Tensor, rows: int, vocab: int) -> Tensor:
        """Loss of each target (N, T) that is `wanted`, and the likeliest id below `vocab` in its place: fp64
        (N, T, 2), 0 where it is not wanted, the same on all ranks. Computed as `token_losses`."""

        def scores(part: Decoder, hidden: Tensor, mine: slice) -> Tensor:
            found = torch.zeros((*wanted[mine].shape, 2), dtype=torch.float64, device=self.device)
            found[wanted[mine]] = part.head_scores(hidden, targets[mine], wanted[mine], vocab)
            return found

        found = self._over_ranks(tokens, rows, scores)
        if self.layout.world > 1:  # of unlike machines two may differ in a bit
            dist.broadcast(found, 0)
        return found

    def validate(self, tokens: Tensor, targets: Tensor, rows: int) -> float:
        """Mean loss of targets (N, T), computed as `token_losses`."""
        return self.token_losses(tokens, targets, rows).mean().item()

    @torch.no_grad()
    def next_logits(self, tokens: Tensor) -> Tensor:
        """Logits (V) behind the last of tokens (1, T), on every rank."""
        last = tokens.shape[1] - 1
        if self.layout.sequence_parallel:  # positions are divided; what comes behind changes nothing
            tokens = torch.nn.functional.pad(tokens, (0, -tokens.shape[1] % self.layout.tp))
        logits = self._forward(tokens, lambda part, hidden: part.head_logits(hidden, last)[0, 0])
        self._release()
        return logits

    def agree(self, token: int) -> int:
        """Rank 0's token: logits of unlike machines may differ in a bit, and all must end a text together."""
        if self.layout.world == 1:
            return token
        shared = torch.tensor(token)  # on the CPU, as it was drawn
        dist.broadcast(shared, 0)
        return int(shared)

    def close(self) -> None:
        """Give the memory of the model back, now: FSDP and pipelines hold cycles, which would keep it.

        The groups stay until the run ends; they hold no tensors.
        """
        self.parts, self.pipeline = [], None
        self._parameters, self.parameters = {}, {}
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _build(self, layers: range, dtype: torch.dtype) -> Decoder:
        with torch.device("meta"):
            part = Decoder(self.config, layers, self.split)
        part.compute_dtype = dtype
        if self.layout.recompute != "none":
            recompute(part, self.layout)
        if self.layout.compile:
            compile_blocks(part)
        if self._sharded:
            from growlm.parallel.sharding import shard

            shard(part, self.mesh.data, self.layout, dtype)
        return part.to_empty(device=self.device)

    @property
    def _sharded(self) -> bool:
        return self.layout.dp > 1 and not self.deterministic

    def _over_ranks(
        self, tokens: Tensor, rows: int, finish: Callable[[Decoder, Tensor, slice], Tensor]
    ) -> Tensor:
        """What `finish` makes of some rows of tokens (N, T): fp64 (N, T, numbers for each token), the same on
        all ranks; computed `rows` sequences at a time, spread over data-parallel ranks."""
        places = [slice(start, min(start + rows, len(tokens))) for start in range(0, len(tokens), rows)]
        dp, rank = self.layout.dp, self.mesh.dp_rank
        found: Tensor | None = None
        for start in range(0, len(places), dp):  # ranks without rows of their own repeat the first
            mine = places[start + rank] if start + rank < len(places) else places[0]
            x = tokens[mine]
            told = self._forward(x, lambda part, hidden, mine=mine: finish(part, hidden, mine))
            told = told.double().view(*x.shape, -1)
            found = told.new_zeros(*tokens.shape, told.shape[-1]) if found is None else found
            if start + rank < len(places):
                found[mine] = told
        assert found is not None
        self._release()
        if dp > 1:
            dist.all_reduce(found)
            found /= self.layout.tp * self.layout.pp
        return found

    def _forward(self, tokens: Tensor, finish: Callable[[Decoder, Tensor], Tensor]) -> Tensor:
        with as_written(self.layout):
            if self.pipeline:
                return self.pipeline.relay(tokens, finish)
            return finish(self.model, self.model(tokens, documents=tokens))

    def _count(self, losses: Tensor, learning: Learning) -> None:
        """Add the losses (B*T) of what is learnt to those of their objectives."""
        learnt = losses.view(learning.weights.shape) * (learning.weights > 0)
        self.group_losses.index_add_(0, learning.group, learnt.double().sum(1))

    def _loss(self, tokens: Tensor, targets: Tensor, learning: Learning | None) -> Tensor:
        """The mean loss of a micro-batch."""
        loss, losses = self.model.head_loss(self.model(tokens, documents=tokens), targets, learning)
        if learning is not None:
            self._count(losses, learning)
        return loss

    def _micro_batches(
        self, tokens: Tensor, targets: Tensor, learning: Learning | None
    ) -> Iterator[tuple[Tensor, Tensor, Learning | None]]:
        size = len(tokens) // self.micro_batches
        for i in range(self.micro_batches):
            rows = slice(i * size, (i + 1) * size)
            yield tokens[rows], targets[rows], None if learning is None else learning.rows(rows)

    def _in_sequence(self, tokens: Tensor, targets: Tensor, learning: Learning | None) -> Tensor:
        """One micro-batch after the other; autograd adds their gradients up."""
        part, pieces = self.model, self.micro_batches
        total = torch.zeros((), device=self.device)
        for i, micro in enumerate(self._micro_batches(tokens, targets, learning)):
            if self._sharded:
                from growlm.parallel.sharding import before_backward

                before_backward(part, self.layout, last=i + 1 == pieces)
            loss = self._loss(*micro) / pieces
            loss.backward()
            total += loss.detach()
        return total

    def _in_a_tree(self, tokens: Tensor, targets: Tensor, learning: Learning | None) -> Tensor:
        """Each micro-batch by itself, summed with those of the other ranks and the ones before in a tree."""
        leaves, dp = TreeSum(), self.layout.dp
        for micro in self._micro_batches(tokens, targets, learning):
            loss = self._loss(*micro)
            loss.backward()
            flat = torch.cat([loss.detach().reshape(1), *(g.reshape(-1) for g in self.grads.values())])
            self.zero_grad()
            leaves.add(sum_over_ranks(flat, self.mesh.group("replica")) if dp > 1 else flat)
        flat = leaves.total().div_(self.micro_batches * dp)
        sizes = [parameter.numel() for parameter in self._parameters.values()]
        loss, *grads = flat.split([1, *sizes])
        for parameter, grad in zip(self._parameters.values(), grads, strict=True):
            parameter.grad = grad.view_as(parameter)
        return loss[0] if self.mesh.rank == 0 else torch.zeros_like(loss[0])

    @torch.no_grad()
    def _share_gradients(self) -> None:
        """Add up the gradients of what several ranks hold and each has only seen a part of."""
        grads, table = self.grads, parameter_table(self.config)
        if isinstance(self.split, TensorParallel):
            _all_reduce(
                [g for n, g in grads.items() if self.split.sums_over_ranks(table[n])], self.split.group
            )
        if self.layout.pp > 1 and self.config.tied and "embedding.weight" in grads:
            first, last = self.mesh.peer(0), self.mesh.peer(self.layout.pp - 1)
            _exchange(grads["embedding.weight"], last if self.mesh.rank == first else first)

    def _squares(self) -> Tensor:
        """The sum of squares of the gradients that this rank counts, fp64."""
        grads = self.grads
        owned = [grads[n] for n in self._owned if grads[n].numel()]
        if not owned:
            return torch.zeros((), dtype=torch.float64, device=self.device)
        norms = torch._foreach_norm(owned)  # pyright: ignore[reportPrivateImportUsage]
        return torch.stack(norms).double().square().sum()

    def _release(self) -> None:
        if self._sharded:
            from growlm.parallel.sharding import release

            for part in self.parts:
                release(part)


def _pipeline(parts: list[Decoder], mesh: Mesh, micro_batches: int) -> Pipeline:
    from growlm.parallel.pipeline import Pipeline

    return Pipeline(parts, mesh, micro_batches)


def _split(mesh: Mesh) -> Split:
    if mesh.layout.tp == 1:
        return WHOLE
    return TensorParallel(mesh.group("tp"), sequence_parallel=mesh.layout.sequence_parallel)


def _local(tensor: Tensor) -> Tensor:
    """A rank's own piece, sharing its memory."""
    with torch.no_grad():
        to_local = getattr(tensor, "to_local", None)  # of a DTensor, without importing it
        return to_local() if to_local else tensor.detach()


def _all_reduce(tensors: list[Tensor], group: dist.ProcessGroup) -> None:
    """Sum tensors over a group in one go, in place."""
    if tensors:
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat, group=group)
        for tensor, summed in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))


def _exchange(grad: Tensor, peer: int) -> None:
    """Add the gradient of the same piece on another rank, in place; both do."""
    other = torch.empty_like(grad)
    ops = [dist.P2POp(dist.isend, grad.contiguous(), peer), dist.P2POp(dist.irecv, other, peer)]
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    grad.add_(other)
