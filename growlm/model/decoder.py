"""The decoder that every family shares, or one pipeline stage of it. The parameter table says what is in it.

A `Split` puts collectives where tensor parallelism needs them; a whole model has the split over one rank.

Dimension names: B batch, T time, D d_model, H heads, K kv heads, E head_dim, F ffn, V vocab.
Weights are kept in fp32 and cast to the compute dtype where they are used.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from growlm.errors import RecipeError
from growlm.model.attention import attention, seen_attention, within_documents
from growlm.model.gelu import linear_gelu
from growlm.model.init import init_rows
from growlm.model.loss import CHUNK_ELEMENTS, Learning
from growlm.model.masks import Masks, Ramp
from growlm.model.parameters import Parameter, axis_sizes, family_of, parameter_table
from growlm.model.positions import apply_rotary
from growlm.model.reading import Layer, Reading
from growlm.model.split import WHOLE, Split
from growlm.recipe.shape import ModelConfig


class Affine(nn.Module):
    """A weight and, if the table has one, a bias."""

    bias: nn.Parameter | None

    def __init__(self, table: dict[str, Parameter], name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(table[f"{name}.weight"].shape))
        bias = table.get(f"{name}.bias")
        self.bias = nn.Parameter(torch.empty(bias.shape)) if bias else None


class Linear(Affine):
    """y = x W^T + b in x's dtype."""

    def cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the compute dtype."""
        return self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, *self.cast(x.dtype))


class RowLinear(Linear):
    """A Linear whose reading axis is split: every rank adds its share, and the bias comes once."""

    def __init__(self, table: dict[str, Parameter], name: str, split: Split) -> None:
        super().__init__(table, name)
        self.split = split

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in / size) -> the residual stream."""
        if self.split.size == 1:
            return super().forward(x)
        weight, bias = self.cast(x.dtype)
        y = self.split.leave(F.linear(x, weight))
        return y if bias is None else y + bias


class Positions(Affine):
    """A learned vector for every position."""

    def forward(self, length: int, at: Tensor | None = None) -> Tensor:
        """Those of the first `length` positions, (T, D), or those `at` (B, T), (B, T, D).

        RecipeError if there are not so many.
        """
        known = len(self.weight)
        if length > known:
            what = f"the model has learned {known} positions and was given {length} tokens"
            raise RecipeError(what, where="context", fix=f"give it {known} tokens or fewer at a time")
        return self.weight[:length] if at is None else self.weight[at]


class Norm(Affine):
    """LayerNorm or RMSNorm over the last axis; under a mask its statistics weigh each unit by that (MSG)."""

    def __init__(self, table: dict[str, Parameter], name: str, kind: str, eps: float) -> None:
        super().__init__(table, name)
        self.kind, self.eps = kind, eps

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(..., D) -> (..., D), mask (D)."""
        if mask is not None:
            return self._masked(x, mask)
        weight = self.weight.to(x.dtype)
        if self.kind == "rms":
            return F.rms_norm(x, weight.shape, weight, self.eps)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)

    def _masked(self, x: Tensor, mask: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        m = mask.to(wide.dtype)
        count = m.sum()
        if self.kind == "layer":
            wide = wide - (wide * m).sum(-1, keepdim=True) / count
        variance = (wide.square() * m).sum(-1, keepdim=True) / count
        y = wide * torch.rsqrt(variance + self.eps) * self.weight.to(wide.dtype)
        if self.bias is not None:
            y = y + self.bias.to(wide.dtype)
        return (y * m).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention; queries and keys of a head are normed if the table has gains for that."""

    def __init__(self, table: dict[str, Parameter], name: str, config: ModelConfig, split: Split) -> None:
        super().__init__()
        self.q_proj = Linear(table, f"{name}.q_proj")
        self.k_proj = Linear(table, f"{name}.k_proj")
        self.v_proj = Linear(table, f"{name}.v_proj")
        self.o_proj = RowLinear(table, f"{name}.o_proj", split)
        self.config, self.family, self.split = config, family_of(config), split
        self.q_norm = self.k_norm = None
        if f"{name}.q_norm.weight" in table:
            eps = config.norm_eps if config.head_norm_eps is None else config.head_norm_eps
            self.q_norm = Norm(table, f"{name}.q_norm", self.family.norm, eps)
            self.k_norm = Norm(table, f"{name}.k_norm", self.family.norm, eps)

    def forward(
        self, x: Tensor, masks: Masks | None, seen: Tensor | None = None, reading: Layer | None = None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); of a split model both are in the layout of the residual stream."""
        x = self.split.enter(x)
        B, T, _ = x.shape
        q, k, v = self.project(x)
        q, k = self._queries_and_keys(q, k, masks)
        v = v.view(B, T, -1, self.config.head_dim)  # B T K E
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # B H T E, B K T E twice
        if reading is None:
            q, k = apply_rotary(q, k, self.config, self.family)
            y = attention(q, k, v, self.config.attn_mult, seen)  # B H T E
        else:
            q, k = apply_rotary(q, k, self.config, self.family, reading.shared.tables)
            y = seen_attention(q, *reading.remember(k, v), self.config.attn_mult, reading.shared.hidden)
        y = y.transpose(1, 2).reshape(B, T, -1)  # B T H*E
        return self.o_proj(_scaled(y, None if masks is None else masks.q))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> queries (B, T, H*E), keys and values (B, T, K*E)."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def _queries_and_keys(self, q: Tensor, k: Tensor, masks: Masks | None) -> tuple[Tensor, Tensor]:
        """(B, T, H*E) and (B, T, K*E) -> (B, T, H, E) and (B, T, K, E), before rotation."""
        B, T, _ = q.shape
        E = self.config.head_dim
        if self.q_norm is None or self.k_norm is None:
            return _scaled(q, None if masks is None else masks.score).view(B, T, -1, E), k.view(B, T, -1, E)
        head = None if masks is None else masks.head
        return self.q_norm(q.view(B, T, -1, E), head), self.k_norm(k.view(B, T, -1, E), head)


ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


class Mlp(nn.Module):
    """Feed-forward layer, gated if the table has a gate."""

    def __init__(self, table: dict[str, Parameter], name: str, activation: str, split: Split) -> None:
        super().__init__()
        self.gate_proj = Linear(table, f"{name}.gate_proj") if f"{name}.gate_proj.weight" in table else None
        self.up_proj = Linear(table, f"{name}.up_proj")
        self.down_proj = RowLinear(table, f"{name}.down_proj", split)
        self.activation, self.split = activation, split

    def expand(self, x: Tensor) -> Tensor:
        """(B, T, D) -> hidden units (B, T, F)."""
        if self.gate_proj is None:
            return self._act(x, self.up_proj)
        return self._act(x, self.gate_proj) * self.up_proj(x)

    def _act(self, x: Tensor, layer: Linear) -> Tensor:
        if self.activation == "gelu_tanh":
            return linear_gelu(x, *layer.cast(x.dtype))
        return ACTIVATIONS[self.activation](layer(x))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down_proj(_scaled(self.expand(self.split.enter(x)), mask))


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x), or both of the same x; growth gates both branches."""

    def __init__(self, table: dict[str, Parameter], layer: int, config: ModelConfig, split: Split) -> None:
        super().__init__()
        family, name = family_of(config), f"blocks.{layer}"
        self.attn_norm = Norm(table, f"{name}.attn_norm", family.norm, config.norm_eps)
        self.attn = Attention(table, f"{name}.attn", config, split)
        self.mlp_norm = Norm(table, f"{name}.mlp_norm", family.norm, config.norm_eps)
        self.mlp = Mlp(table, f"{name}.mlp", family.activation, split)
        self.parallel, self.mult = family.parallel, config.residual_mult

    def forward(
        self,
        x: Tensor,
        masks: Masks | None,
        gate: Tensor | None,
        seen: Tensor | None = None,
        reading: Layer | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D). Nothing here tells blocks apart: they share one compiled graph."""
        d_model, ffn = (None, None) if masks is None else (masks.d_model, masks.ffn)
        y = self._add(x, self.attn(self.attn_norm(x, d_model), masks, seen, reading), gate)
        return self._add(y, self.mlp(self.mlp_norm(x if self.parallel else y, d_model), ffn), gate)

    def _add(self, x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
        """The stream with what a branch adds to it, all (B, T, D)."""
        return torch.add(x, branch if gate is None else branch * gate, alpha=self.mult)


def _scaled(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)


class Decoder(nn.Module):
    """A decoder-only language model of any family, or the part of one that has `layers`.

    The part with layer 0 has the embedding, the one with the last layer the final norm and the head. A tied
    head is the embedding, of which both parts then hold a copy.
    """

    embedding: Affine
    norm: Norm

    def __init__(self, config: ModelConfig, layers: range | None = None, split: Split = WHOLE) -> None:
        super().__init__()
        self.config, self.split = config, split
        self.layers = range(config.n_layers) if layers is None else layers
        self.first, self.last = self.layers.start == 0, self.layers.stop == config.n_layers
        table = parameter_table(config)
        table = {n: replace(p, shape=p.local_shape(split.size)) for n, p in table.items()}
        if self.first or (self.last and config.tied):
            self.embedding = Affine(table, "embedding")
        learned = self.first and "position.weight" in table
        self.position = Positions(table, "position") if learned else None
        self.blocks = nn.ModuleList()
        for i in range(config.n_layers):  # of what is elsewhere only the number is here
            self.blocks.add_module(str(i), Block(table, i, config, split) if i in self.layers else None)
        if self.last:
            self.norm = Norm(table, "norm", family_of(config).norm, config.norm_eps)
        self.lm_head = Affine(table, "lm_head") if self.last and not config.tied else None
        self.compute_dtype: torch.dtype | None = None
        self.masks: Masks | None = None
        self.document_end: int | None = None
        """The token that ends a document, where attention keeps documents apart."""

    @torch.no_grad()
    def init_weights(self, seed: int) -> Decoder:
        """Fill every parameter of a whole model by its record in the table."""
        table = parameter_table(self.config)
        for name, tensor in self.named_parameters():
            tensor.copy_(init_rows(table[name], seed, 0, tensor.shape[0]))
        return self

    def set_mask(self, ramp: Ramp | None, value: float) -> None:
        """Put the new units of a growth behind `value`; None or 1 removes every mask."""
        self.masks = None
        if ramp is not None and value < 1.0:
            split = (self.split.rank, self.split.size)
            self.masks = Masks(ramp, value, axis_sizes(self.config), self.device, split)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def head(self) -> Tensor:
        """The output matrix (V, D); the embedding when tied."""
        return self.embedding.weight if self.lm_head is None else self.lm_head.weight

    def embed(self, tokens: Tensor, reading: Reading | None = None) -> Tensor:
        """The residual stream (B, T, D) before the first block."""
        x = self.split.lookup(tokens, self.embedding.weight)
        if self.config.input_mult != 1.0:
            x = x * self.config.input_mult
        if self.position is not None and reading is None:
            x = x + self.split.positions(self.position(tokens.shape[1]))
        elif self.position is not None and reading is not None:
            x = x + self.position(int(reading.positions.max()) + 1, reading.positions)
        return x if self.compute_dtype is None else x.to(self.compute_dtype)

    def forward(
        self,
        x: Tensor,
        trace: list[Tensor] | None = None,
        documents: Tensor | None = None,
        reading: Reading | None = None,
    ) -> Tensor:
        """Tokens (B, T), or the stream from the part before, to the final hidden states, or the stream for
        the part behind, all in the layout of the stream, (B, T, D); `trace` collects it after each block.

        `documents` are the tokens (B, T) again where documents are kept apart (`document_end`). `reading`,
        of a model that is not split: where the tokens stand and what they see, if not from the start and
        all before them.
        """
        seen = None
        if documents is not None and self.document_end is not None:
            seen = within_documents(documents, self.document_end)
        if self.first:
            x = self.embed(x, reading)
        shared = None if reading is None else reading.shared(self.config, family_of(self.config), x.dtype)
        for layer in self.layers:
            gate = None if self.masks is None else self.masks.gate(layer)
            if reading is None or shared is None:
                x = self.blocks[layer](x, self.masks, gate, seen)
            else:
                x = self.blocks[layer](x, self.masks, gate, None, reading.layer(layer).with_shared(shared))
            if trace is not None:
                trace.append(x)
        if not self.last:
            return x
        return self.norm(x, None if self.masks is None else self.masks.d_model)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy in nats of targets (B, T) given tokens (B, T)."""
        return self.head_loss(self(tokens, documents=tokens), targets)[0]

    def head_loss(
        self, hidden: Tensor, targets: Tensor, learning: Learning | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy in nats of targets (B, T) given what `forward` makes of their tokens.

        The mean over all of them, each times its weight in `learning`, and that of each, (B*T), without
        gradient and weight; 0 for those of weight 0, where those cost nothing.
        """
        flat, y = self.split.enter(hidden).flatten(0, 1), targets.flatten()  # B*T D
        factors = None if learning is None else learning.weights.flatten()
        if factors is None or learning is None or learning.classes is None:
            return self._vocabulary_loss(flat, y, factors)
        judged = ((y == learning.classes[0]) | (y == learning.classes[1])) & (factors > 0)
        mean, losses = self._vocabulary_loss(flat, y, factors.masked_fill(judged, 0))
        place = judged.nonzero().squeeze(1)
        found = self._two_way_losses(flat[place], y[place], learning.classes)
        losses = losses.index_copy(0, place, found.detach().to(losses.dtype))
        return mean + (found @ factors[place].to(found.dtype)) / len(y), losses

    def _vocabulary_loss(self, flat: Tensor, y: Tensor, factors: Tensor | None) -> tuple[Tensor, Tensor]:
        mult, bias = self.config.logit_mult, None if self.masks is None else self.masks.logit_bias
        return self.split.cross_entropy(flat, self.head, y, mult=mult, bias=bias, factors=factors)

    def _two_way_losses(self, flat: Tensor, y: Tensor, classes: tuple[int, int]) -> Tensor:
        """Cross entropy (N) of y, each one of two classes, by their rows of the head: FreeLM's head, a
        matrix (2, D) without bias (2305.01616)."""
        ids = torch.tensor(classes, device=y.device)
        logits = self.split.logits_of(flat, self.head, ids, self.config.logit_mult)
        return F.cross_entropy(logits, (y == classes[1]).long(), reduction="none")

    def logits(self, tokens: Tensor, trace: list[Tensor] | None = None) -> Tensor:
        """Logits (B, T, V) in fp32 or wider. For evaluation and sampling, not for training."""
        return self.head_logits(self(tokens, trace, documents=tokens))

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Logits (V) behind the last of tokens (1, T)."""
        return self.head_logits(self(tokens), tokens.shape[1] - 1)[0, 0]

    def agree(self, token: int) -> int:
        """The token that is sampled: one process draws for itself."""
        return token

    def head_scores(self, hidden: Tensor, targets: Tensor, wanted: Tensor, vocab: int) -> Tensor:
        """Loss of each target (B, T) that is `wanted` (n of them), and the likeliest id below `vocab` in its
        place: (n, 2), fp64, given what `forward` makes of the tokens. Others cost nothing."""
        bias = None if self.masks is None else self.masks.logit_bias
        flat, y = self.split.enter(hidden)[wanted], targets[wanted]  # n D, n
        rows = max(1, CHUNK_ELEMENTS // self.config.vocab_size)
        found = []
        for some, its in zip(flat.split(rows), y.split(rows), strict=True):
            logits = self.split.logits(some, self.head, self.config.logit_mult, bias)  # rows V
            losses = F.cross_entropy(logits, its, reduction="none")
            found.append(torch.stack((losses.double(), logits[:, :vocab].argmax(1).double()), 1))
        return torch.cat(found)

    def head_logits(self, hidden: Tensor, start: int = 0) -> Tensor:
        """Logits of positions `start` on, (B, T - start, V), of what `forward` makes of tokens (B, T)."""
        bias = None if self.masks is None else self.masks.logit_bias
        return self.split.logits(self.split.enter(hidden)[:, start:], self.head, self.config.logit_mult, bias)
