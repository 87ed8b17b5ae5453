"""The smallest models that still have every kind of parameter, shared by the tests of model and growth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

State = dict[str, Tensor]

FAMILIES = [("flm", True), ("flm", False), ("llama", True), ("llama", False)]
"""(family, tied)"""

IMPORTED = [("qwen2", True), ("qwen3", False), ("gpt2", True), ("neox", False), ("opt", True)]
"""The same for the families that only imported models have."""

NEEDS: dict[str, dict[str, Any]] = {
    "gpt2": {"max_positions": 32},
    "opt": {"max_positions": 32},
    "neox": {"rotary_share": 0.5},
}
"""What a family cannot do without, or is not itself without."""


def config(family: str = "llama", **changes: Any) -> ModelConfig:
    base = ModelConfig(
        family=family, d_model=16, n_heads=4, n_kv_heads=2, head_dim=4, d_ff=24, n_layers=2, vocab_size=50
    )
    return base.with_(**NEEDS.get(family, {}) | changes)


def trained(c: ModelConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> State:
    """Weights with nothing special about them: no zero biases, no unit gains."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, p in parameter_table(c).items():
        noise = torch.randn(p.shape, generator=generator, dtype=dtype)
        state[name] = 1 + 0.3 * noise if p.role == "gain" else 0.2 * noise
    return state


def decoder(c: ModelConfig, state: State | None = None) -> Decoder:
    """A model in the precision of its weights."""
    state = trained(c) if state is None else state
    model = Decoder(c).to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model


def batch(c: ModelConfig, seed: int = 0, length: int = 16) -> tuple[Tensor, Tensor]:
    """Tokens and targets, (2, length)."""
    tokens = torch.randint(0, c.vocab_size, (2, length + 1), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


def gradients(model: Decoder, tokens: Tensor, targets: Tensor) -> State:
    """The gradient of the loss by parameter name."""
    model.zero_grad()
    model.loss(tokens, targets).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
