"""The shape of a model and its constants: what the parameter table is computed from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model: its axes and the constants of its forward pass. Immutable, JSON-able, no torch.

    The last four fields are *carried through growth* rather than recomputed: a zero-padded RMSNorm
    needs a smaller epsilon, a duplicated tied model a smaller logit multiplier (docs/growth.md).
    """

    family: str
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    n_layers: int
    vocab_size: int
    tied: bool = True
    rope_theta: float = 10000.0
    xpos_scale_base: float = 512.0
    init_std: float = 0.02
    mup_base_d_model: int | None = None
    norm_eps: float = 1e-5
    input_mult: float = 1.0
    logit_mult: float = 1.0

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // self.n_kv_heads

    def with_(self, **changes: Any) -> ModelConfig:
        """The same model with some fields replaced."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `ModelConfig(**d)` is the inverse."""
        return asdict(self)
