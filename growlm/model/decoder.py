"""The decoder that every family shares. What it contains is read from the parameter table.

Dimension names: B batch, T time, D d_model, H heads, K kv heads, E head_dim, F ffn, V vocab.
Weights are kept in fp32 and cast to the compute dtype where they are used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from growlm.errors import RecipeError
from growlm.model.attention import attention
from growlm.model.gelu import linear_gelu
from growlm.model.init import init_rows
from growlm.model.loss import cross_entropy, head_logits
from growlm.model.masks import Masks, Ramp
from growlm.model.parameters import Parameter, axis_sizes, family_of, parameter_table
from growlm.model.positions import apply_rotary
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


class Positions(Affine):
    """A learned vector for every position."""

    def forward(self, length: int) -> Tensor:
        """Those of the first `length` positions, (T, D); RecipeError if there are not so many."""
        known = len(self.weight)
        if length > known:
            what = f"the model has learned {known} positions and was given {length} tokens"
            raise RecipeError(what, where="context", fix=f"give it {known} tokens or fewer at a time")
        return self.weight[:length]


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

    def __init__(self, table: dict[str, Parameter], name: str, config: ModelConfig) -> None:
        super().__init__()
        self.q_proj = Linear(table, f"{name}.q_proj")
        self.k_proj = Linear(table, f"{name}.k_proj")
        self.v_proj = Linear(table, f"{name}.v_proj")
        self.o_proj = Linear(table, f"{name}.o_proj")
        self.config, self.family = config, family_of(config)
        self.q_norm = self.k_norm = None
        if f"{name}.q_norm.weight" in table:
            eps = config.norm_eps if config.head_norm_eps is None else config.head_norm_eps
            self.q_norm = Norm(table, f"{name}.q_norm", self.family.norm, eps)
            self.k_norm = Norm(table, f"{name}.k_norm", self.family.norm, eps)

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        B, T, _ = x.shape
        q, k = self._queries_and_keys(x, None if masks is None else masks.score)
        v = self.v_proj(x).view(B, T, -1, self.config.head_dim)  # B T K E
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # B H T E, B K T E twice
        q, k = apply_rotary(q, k, self.config, self.family)
        y = attention(q, k, v, self.config.attn_mult).transpose(1, 2).reshape(B, T, -1)  # B T H*E
        return self.o_proj(_scaled(y, None if masks is None else masks.q))

    def _queries_and_keys(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> (B, T, H, E) and (B, T, K, E), before rotation; mask (H*E)."""
        B, T, _ = x.shape
        E = self.config.head_dim
        q, k = self.q_proj(x), self.k_proj(x)
        if self.q_norm is None or self.k_norm is None:
            return _scaled(q, mask).view(B, T, -1, E), k.view(B, T, -1, E)
        # Heads share their gains, so a unit that is new in the old heads is new in all.
        head = None if mask is None else mask.view(-1, E).amax(0)
        return self.q_norm(q.view(B, T, -1, E), head), self.k_norm(k.view(B, T, -1, E), head)


ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


class Mlp(nn.Module):
    """Feed-forward layer, gated if the table has a gate."""

    def __init__(self, table: dict[str, Parameter], name: str, activation: str) -> None:
        super().__init__()
        self.gate_proj = Linear(table, f"{name}.gate_proj") if f"{name}.gate_proj.weight" in table else None
        self.up_proj = Linear(table, f"{name}.up_proj")
        self.down_proj = Linear(table, f"{name}.down_proj")
        self.activation = activation

    def _act(self, x: Tensor, layer: Linear) -> Tensor:
        if self.activation == "gelu_tanh":
            return linear_gelu(x, *layer.cast(x.dtype))
        return ACTIVATIONS[self.activation](layer(x))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if self.gate_proj is None:
            y = self._act(x, self.up_proj)  # B T F
        else:
            y = self._act(x, self.gate_proj) * self.up_proj(x)
        return self.down_proj(_scaled(y, mask))


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x), or both of the same x; growth gates both branches."""

    def __init__(self, table: dict[str, Parameter], layer: int, config: ModelConfig) -> None:
        super().__init__()
        family, name = family_of(config), f"blocks.{layer}"
        self.attn_norm = Norm(table, f"{name}.attn_norm", family.norm, config.norm_eps)
        self.attn = Attention(table, f"{name}.attn", config)
        self.mlp_norm = Norm(table, f"{name}.mlp_norm", family.norm, config.norm_eps)
        self.mlp = Mlp(table, f"{name}.mlp", family.activation)
        self.layer, self.parallel = layer, family.parallel

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        d_model = ffn = gate = None
        if masks is not None:
            d_model, ffn, gate = masks.d_model, masks.ffn, masks.gate(self.layer)
        branch = self.attn(self.attn_norm(x, d_model), masks)
        y = x + (branch if gate is None else branch * gate)
        branch = self.mlp(self.mlp_norm(x if self.parallel else y, d_model), ffn)
        return y + (branch if gate is None else branch * gate)


def _scaled(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)


class Decoder(nn.Module):
    """A decoder-only language model of any family."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        table = parameter_table(config)
        self.config = config
        self.embedding = Affine(table, "embedding")
        self.position = Positions(table, "position") if "position.weight" in table else None
        self.blocks = nn.ModuleList(Block(table, i, config) for i in range(config.n_layers))
        self.norm = Norm(table, "norm", family_of(config).norm, config.norm_eps)
        self.lm_head = None if config.tied else Affine(table, "lm_head")
        self.compute_dtype: torch.dtype | None = None
        self.masks: Masks | None = None

    @torch.no_grad()
    def init_weights(self, seed: int) -> Decoder:
        """Fill every parameter by its record in the table."""
        table = parameter_table(self.config)
        for name, tensor in self.named_parameters():
            tensor.copy_(init_rows(table[name], seed, 0, tensor.shape[0]))
        return self

    def set_mask(self, ramp: Ramp | None, value: float) -> None:
        """Put the new units of a growth behind `value`; None or 1 removes every mask."""
        self.masks = None
        if ramp is not None and value < 1.0:
            self.masks = Masks(ramp, value, axis_sizes(self.config), self.head.device)

    @property
    def head(self) -> Tensor:
        """The output matrix (V, D); the embedding when tied."""
        return self.embedding.weight if self.lm_head is None else self.lm_head.weight

    def embed(self, tokens: Tensor) -> Tensor:
        """The residual stream (B, T, D) before the first block."""
        x = F.embedding(tokens, self.embedding.weight)
        if self.config.input_mult != 1.0:
            x = x * self.config.input_mult
        if self.position is not None:
            x = x + self.position(tokens.shape[1])
        return x if self.compute_dtype is None else x.to(self.compute_dtype)

    def forward(self, tokens: Tensor, trace: list[Tensor] | None = None) -> Tensor:
        """Final hidden states (B, T, D) of tokens (B, T); `trace` collects the stream after each block."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.masks)
            if trace is not None:
                trace.append(x)
        return self.norm(x, None if self.masks is None else self.masks.d_model)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy in nats of targets (B, T) given tokens (B, T)."""
        hidden = self(tokens).flatten(0, 1)  # B*T D
        bias = None if self.masks is None else self.masks.logit_bias
        return cross_entropy(hidden, self.head, targets.flatten(), mult=self.config.logit_mult, bias=bias)

    def logits(self, tokens: Tensor, trace: list[Tensor] | None = None) -> Tensor:
        """Logits (B, T, V) in fp32 or wider. For evaluation and sampling, not for training."""
        hidden = self(tokens, trace)
        bias = None if self.masks is None else self.masks.logit_bias
        return head_logits(hidden, self.head, self.config.logit_mult, bias)
