"""Deep Fusion (2306.11903): trained models side by side as the diagonal blocks of one wide model.

Nothing but the norms and the head joins the models at first: the stream of each runs through its own blocks,
the norms' statistics count the units of all of them, and the head adds up their logits, so the logit
multiplier is divided by their number. A fusion of equal models computes what they compute; of others, the
mean of their logits as far as the shared norm allows. Training wires them to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from growlm.errors import GrowthError
from growlm.growth.streaming import HEAD_ELEMENTS, Layerwise, StreamedLoss
from growlm.growth.weights import Weights
from growlm.model.parameters import family_of, parameter_table
from growlm.recipe.shape import ModelConfig

JOINED = ("d_model", "q", "kv", "ffn")
"""Axes that are laid side by side; all parents share the others (tokens, positions)."""


class FusedWeights:
    """The block-diagonal model of two or more parents (a `Weights`). Raises GrowthError if they do not fit.

    Its optimizer state cannot be had from theirs: AdamW's clock would have to start anew for the entries
    between two models alone, and clocks belong to units (docs/growth.md). So it starts anew for all.
    """

    def __init__(self, parents: Sequence[Weights]) -> None:
        self.parents = parents
        self.config = fused_config([parent.config for parent in parents])
        self._table = parameter_table(self.config)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype that holds the values of all parents."""
        dtype = self.parents[0].dtype(name)
        for parent in self.parents[1:]:
            dtype = torch.promote_types(dtype, parent.dtype(name))
        return dtype

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (all by default): those of every parent in its own columns, else zeros."""
        parameter = self._table[name]
        stop = parameter.shape[0] if stop is None else stop
        rows = torch.zeros(stop - start, *parameter.shape[1:], dtype=self.dtype(name))
        joined = parameter.axes[0] in JOINED
        row = column = 0
        for parent in self.parents:
            shape = parameter_table(parent.config)[name].shape
            a, b = max(start, row), min(stop, row + shape[0])
            if a < b:
                block = rows[a - start : b - start]
                block = block[:, column : column + shape[1]] if len(parameter.axes) > 1 else block
                block.copy_(parent.read(name, a - row, b - row))
            row += shape[0] if joined else 0
            column += shape[-1]
        return rows


def fused_config(configs: Sequence[ModelConfig]) -> ModelConfig:
    """The shape of the fused model. Raises GrowthError if the parents differ in anything but their widths."""
    first = configs[0]
    if any("head_dim" in slot.axes for slot in family_of(first).slots):
        raise GrowthError(
            f"models of family {first.family} cannot be fused",
            why="all heads of a block share one norm, and those of two models have two",
            fix="fuse models without norms of queries and keys",
        )
    widths = ("d_model", "n_heads", "n_kv_heads", "d_ff")
    for other in configs[1:]:
        expected = first.with_(**{name: getattr(other, name) for name in widths}).to_dict()
        differ = [name for name, value in other.to_dict().items() if value != expected[name]]
        if other.queries_per_kv != first.queries_per_kv:
            differ.append("n_heads / n_kv_heads")
        if differ:
            raise GrowthError(
                f"the models to fuse differ in {', '.join(differ)}",
                why="only d_model, kv heads and d_ff are laid side by side, everything else is shared",
                fix="grow the smaller model first, or fuse models of one recipe",
            )
    sizes = {name: sum(getattr(config, name) for config in configs) for name in widths}
    return first.with_(**sizes, logit_mult=first.logit_mult / len(configs))


@torch.no_grad()
def certify_fusion(fused: FusedWeights, tokens: Tensor, targets: Tensor) -> dict[str, Any]:
    """The fused model beside its parents on tokens and targets (B, T), block by block in fp32.

    `max_dlogit` is its largest deviation from the mean of the parents' logits; losses are in nats: of each
    parent, of that mean, and of the fused model.
    """
    models = [Layerwise(weights, torch.float32) for weights in (*fused.parents, fused)]
    hidden = [model.hidden(tokens) for model in models]
    losses = [StreamedLoss(h, targets.flatten()) for h in (*hidden, hidden[-1])]
    moved = torch.zeros(())
    step = max(1, HEAD_ELEMENTS // (tokens.numel() + fused.config.d_model))
    for start in range(0, fused.config.vocab_size, step):
        stop = min(fused.config.vocab_size, start + step)
        *parents, now = (m.logits(h, start, stop) for m, h in zip(models, hidden, strict=True))
        mean = torch.stack(parents).mean(0)
        moved = torch.maximum(moved, (now - mean).abs().max())
        for loss, logits in zip(losses, (*parents, mean, now), strict=True):
            loss.add(logits, start)
    *of_parents, of_mean, of_fused = (loss.mean() for loss in losses)
    return {
        "max_dlogit": moved.item(),
        "loss_parents": of_parents,
        "loss_mean": of_mean,
        "loss_fused": of_fused,
    }
