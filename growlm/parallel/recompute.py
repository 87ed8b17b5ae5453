"""Activations that are made again in the backward pass, to save memory: of whole blocks, or by operation.

Of a block whose activations are recomputed in full, only the input is kept. Selectively, the results of
attention and of every second matrix product are kept, too, and the rest is made again from them (torchtitan's
policy): what takes long is mostly kept, and what takes memory (norms, rotations, activations, the wide hidden
layer) mostly not. Collectives are kept where blocks are compiled, selectively; otherwise those of a
recomputed block run again in the backward pass. Results are those without recomputation, bit for bit.

It is the block's own forward pass that is wrapped, without what torch.compile and FSDP2 put around a block,
so both work as on any other block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from growlm.model.decoder import Block, Decoder
from growlm.model.masks import Masks
from growlm.model.reading import Layer
from growlm.plan.layout import Layout


def recompute(part: Decoder, layout: Layout) -> None:
    """Make every `layout.recompute_every`-th block of a model part recompute its activations, in place."""
    if layout.recompute == "none":
        return
    kind = FullyRecomputed if layout.recompute == "full" else SelectivelyRecomputed
    for layer in part.layers[:: layout.recompute_every]:
        part.blocks[layer].__class__ = kind  # parameters keep their names, as they would not in a wrapper


class FullyRecomputed(Block):
    """A block that keeps its input alone."""

    def forward(
        self,
        x: Tensor,
        masks: Masks | None,
        gate: Tensor | None,
        seen: Tensor | None = None,
        reading: Layer | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); a `reading` is no training and keeps nothing."""
        if reading is not None:
            return super().forward(x, masks, gate, seen, reading)
        return checkpoint(  # type: ignore[no-any-return]
            super().forward, x, masks, gate, seen, use_reentrant=False, preserve_rng_state=False
        )


class SelectivelyRecomputed(Block):
    """A block that keeps its input and what `is_kept`."""

    def forward(
        self,
        x: Tensor,
        masks: Masks | None,
        gate: Tensor | None,
        seen: Tensor | None = None,
        reading: Layer | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); a `reading` is no training and keeps nothing."""
        if reading is not None:
            return super().forward(x, masks, gate, seen, reading)
        return checkpoint(  # type: ignore[no-any-return]
            super().forward,
            x,
            masks,
            gate,
            seen,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=_selective,  # named here: torch.compile takes no attribute
        )


def _operations(*names: str) -> frozenset[Any]:
    """Those of the operations `namespace.name` that this torch has; the default overload of each."""
    found = set()
    for name in names:
        namespace, _, operation = name.partition(".")
        packet = getattr(getattr(torch.ops, namespace), operation, None)
        if packet is not None:
            found.add(packet.default)
    return frozenset(found)


PRODUCTS = _operations("aten.mm", "aten.addmm", "aten.linear", "mkldnn._linear_pointwise")
KEPT = _operations(
    "aten.bmm",  # attention by matmuls: its values; its scores (baddbmm) are T x T, and made again
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._scaled_dot_product_fused_attention_overrideable",
    "_c10d_functional.all_reduce",
    "_c10d_functional.all_gather_into_tensor",
    "_c10d_functional.reduce_scatter_tensor",
)


def is_kept(operation: Any, product: int) -> bool:
    """Whether a result is kept: attention always, matrix product number 1, 3, 5 of a block, and collectives.

    Those only in compiled blocks: elsewhere a collective has no result, it fills a tensor that is there.

    `product` counts the matrix products of the block up to this operation. Of q, k, v, o, up and down that
    keeps q, v and up, with a gate q, v, gate and down; which they are matters little, they cost the same.
    """
    return operation in KEPT or (operation in PRODUCTS and product % 2 == 1)


def _selective() -> Any:
    """The contexts of one block's forward pass and of its recomputation, in which products count anew."""
    products = {False: 0, True: 0}

    def policy(context: SelectiveCheckpointContext, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        products[context.is_recompute] += operation in PRODUCTS
        kept = is_kept(operation, products[context.is_recompute])
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)
