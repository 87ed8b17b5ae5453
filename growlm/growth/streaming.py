"""The certificate of models that do not fit into memory: block by block, the old and the new one in step.

One block of one model is in memory at a time, beside the two residual streams; the embedding is read for
the tokens of the batch alone, the head in parts of the vocabulary. There are no gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from growlm.growth.certify import DTYPES, stream_change, tolerance, within
from growlm.growth.operators import Growth
from growlm.growth.symmetry import symmetry_rank
from growlm.growth.weights import Weights
from growlm.model.decoder import Decoder
from growlm.model.loss import head_logits
from growlm.model.masks import Masks
from growlm.model.parameters import axis_sizes, parameter_table
from growlm.recipe.shape import ModelConfig

HEAD_ELEMENTS = 1 << 23  # weights of the head, and logits, held at a time


def certify_streaming(
    growth: Growth, old: Weights, new: Weights, tokens: Tensor, targets: Tensor
) -> dict[str, Any]:
    """What `certify` finds, without the gradients; tokens and targets (B, T).

    Precision and the second try in fp64 are as there.
    """
    certificate = _measure(growth, old, new, tokens, targets, growth.table.certify)
    if growth.exact and growth.table.certify == "fp32" and not within(certificate):
        in_fp32 = certificate["max_dlogit"]
        certificate = _measure(growth, old, new, tokens, targets, "fp64") | {"max_dlogit_fp32": in_fp32}
    return {"kind": "streaming"} | certificate | {"symmetry": symmetry_rank(growth, new)}


class Layerwise:
    """A model of which one block at a time is in memory, in `dtype`; `masks` as in training."""

    def __init__(self, weights: Weights, dtype: torch.dtype, masks: Masks | None = None) -> None:
        self._weights, self._dtype, self._masks = weights, dtype, masks
        with torch.device("meta"):
            self._model = Decoder(weights.config)

    def embed(self, tokens: Tensor) -> Tensor:
        """The residual stream (B, T, D) before the first block, of tokens (B, T)."""
        ids, places = tokens.unique(return_inverse=True)
        rows = torch.cat([self._read("embedding.weight", i, i + 1) for i in ids.tolist()])
        self._model.embedding.weight = nn.Parameter(rows, requires_grad=False)
        if self._model.position is not None:
            table = self._read("position.weight", 0, tokens.shape[1])
            self._model.position.weight = nn.Parameter(table, requires_grad=False)
        return self._model.embed(places)

    def block(self, layer: int, x: Tensor) -> Tensor:
        """The stream behind a block, (B, T, D) -> (B, T, D)."""
        gate = None if self._masks is None else self._masks.gate(layer)
        return self._call(self._model.blocks[layer], f"blocks.{layer}", x, self._masks, gate)

    def norm(self, x: Tensor) -> Tensor:
        """The final norm, (B, T, D) -> (B, T, D)."""
        return self._call(self._model.norm, "norm", x, None if self._masks is None else self._masks.d_model)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Final hidden states of tokens (B, T), one row for each token: (B*T, D)."""
        x = self.embed(tokens)
        for layer in range(self._model.config.n_layers):
            x = self.block(layer, x)
        return self.norm(x).flatten(0, 1)

    def logits(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """Logits of the tokens [start, stop) of the vocabulary, (N, D) -> (N, stop - start)."""
        name = "embedding.weight" if self._model.lm_head is None else "lm_head.weight"
        bias = None if self._masks is None else self._masks.logit_bias
        bias = bias if bias is None else bias[start:stop]
        return head_logits(hidden, self._read(name, start, stop), self._model.config.logit_mult, bias)

    def _call(self, module: nn.Module, name: str, *inputs: Any) -> Tensor:
        state = {n: self._read(f"{name}.{n}") for n, _ in module.named_parameters()}
        return functional_call(module, state, inputs)

    def _read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        return self._weights.read(name, start, stop).to(self._dtype)


@torch.no_grad()
def layer_distances(old: Weights, tokens: Tensor) -> list[float]:
    """How much each block changes the stream on tokens (B, T): 1 - mean cosine of its input and output."""
    model = Layerwise(old, torch.float32)
    x, distances = model.embed(tokens), []
    for layer in range(old.config.n_layers):
        y = model.block(layer, x)
        distances.append(1 - torch.cosine_similarity(x, y, dim=-1).mean().item())
        x = y
    return distances


def start_masks(growth: Growth, config: ModelConfig) -> Masks | None:
    """The masks of the grown model before its first step; None without a ramp."""
    value = growth.ramp.value(0)
    return Masks(growth.ramp, value, axis_sizes(config), torch.device("cpu")) if value < 1 else None


@torch.no_grad()
def _measure(
    growth: Growth, old: Weights, new: Weights, tokens: Tensor, targets: Tensor, precision: str
) -> dict[str, Any]:
    before = Layerwise(old, DTYPES[precision])
    after = Layerwise(new, DTYPES[precision], start_masks(growth, new.config))
    x, y = before.embed(tokens), after.embed(tokens)
    layers = []
    for i, layer in enumerate(growth.layers):
        y = after.block(i, y)
        x = x if layer.new else before.block(layer.source, x)
        layers.append({"layer": i, "from": layer.source, "drift": stream_change(growth, x, y)})
    hidden = [model.norm(stream).flatten(0, 1) for model, stream in ((before, x), (after, y))]
    moved, largest, losses = _compare_heads(growth, before, after, hidden, targets.flatten())
    return {
        "exact": growth.exact,
        "precision": precision,
        "tolerance": tolerance(growth, precision, _epsilon(old), largest),
        "max_dlogit": moved,
        "dloss": losses[1] - losses[0],
        "loss_before": losses[0],
        "loss_after": losses[1],
        "layers": layers,
        "tokens": tokens.numel(),
    }


def _epsilon(weights: Weights) -> float:
    """Of the coarsest dtype that a tensor is stored in."""
    return max(torch.finfo(weights.dtype(name)).eps for name in parameter_table(weights.config))


def _compare_heads(
    growth: Growth, before: Layerwise, after: Layerwise, hidden: list[Tensor], targets: Tensor
) -> tuple[float, float, list[float]]:
    """Largest change of an old token's logit, largest old logit, both mean losses; part by part."""
    n, sizes = len(targets), (growth.old.vocab_size, growth.new.vocab_size)
    losses = [StreamedLoss(h, targets) for h in hidden]
    moved = largest = 0.0
    step = max(1, HEAD_ELEMENTS // (n + growth.new.d_model))
    for start in range(0, sizes[1], step):
        stop = min(sizes[1], start + step)
        now = after.logits(hidden[1], start, stop)
        losses[1].add(now, start)
        if start < sizes[0]:
            was = before.logits(hidden[0], start, min(stop, sizes[0]))
            losses[0].add(was, start)
            change = (now[:, : was.shape[1]] - was).abs().max().item()
            moved = float(np.maximum(moved, change))  # unlike max, it keeps a NaN
            largest = max(largest, was.abs().max().item())
    return moved, largest, [loss.mean() for loss in losses]


class StreamedLoss:
    """Cross entropy from logits that come in parts of the vocabulary."""

    def __init__(self, hidden: Tensor, targets: Tensor) -> None:
        self._targets = targets
        self._log_sum = hidden.new_full((len(targets),), -torch.inf)
        self._logit = hidden.new_zeros(len(targets))

    def add(self, logits: Tensor, start: int) -> None:
        """The logits (N, part) of the tokens from `start` on."""
        self._log_sum = torch.logaddexp(self._log_sum, torch.logsumexp(logits, dim=1))
        place = self._targets - start
        here = (place >= 0) & (place < logits.shape[1])
        self._logit[here] = logits[here, place[here]]

    def mean(self) -> float:
        """Mean loss in nats."""
        return (self._log_sum - self._logit).mean().item()
