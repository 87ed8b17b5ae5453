"""The shape of a model and its constants: what the parameter table is computed from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model: its axes and the constants of its forward pass. Immutable, JSON-able, no torch.

    The fields from `norm_eps` on are *carried through growth* rather than recomputed: a zero-padded
    RMSNorm needs a smaller epsilon, a duplicated tied model a smaller logit multiplier, a larger head_dim
    the old rotary frequencies on the old pairs (docs/growth.md).

    A rotated pair with exponent e turns by rope_theta^-e per position. `rotary` lists the exponents; None
    means those of RoPE over the first `rotary_share` of a head. Scores are q.k * attn_mult / sqrt(head_dim).
    `rope_scaling`: (factor, low_freq_factor, high_freq_factor, original positions) of Llama 3.
    `max_positions`: rows of a learned position table. `head_norm_eps`: epsilon of the norms on queries and
    keys, which stays what it was when `norm_eps` is rescaled; None means `norm_eps`.

    `mup_base_*` is the base shape that multipliers are relative to, one for the whole run: without a width
    there are none (`sp`), without layers none of depth (`mup`), with both it is `completep`.
    `mup_base_hidden`: base sizes of the axes q, kv and ffn; None means that they grew as d_model did.
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
    rotary_share: float = 1.0
    rope_scaling: tuple[float, float, float, float] | None = None
    max_positions: int | None = None
    init_std: float = 0.02
    mup_base_d_model: int | None = None
    mup_base_hidden: tuple[float, float, float] | None = None
    mup_base_n_layers: int | None = None
    norm_eps: float = 1e-5
    head_norm_eps: float | None = None
    input_mult: float = 1.0
    logit_mult: float = 1.0
    attn_mult: float = 1.0
    rotary: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for field in (
            "rope_scaling",
            "rotary",
            "mup_base_hidden",
        ):  # JSON has lists, a cache key needs tuples
            value = getattr(self, field)
            if isinstance(value, list):
                object.__setattr__(self, field, tuple(value))

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // self.n_kv_heads

    @property
    def rotary_exponents(self) -> tuple[float, ...]:
        """Exponent e of every rotated pair of a head, (pairs): i / pairs unless `rotary` says otherwise."""
        if self.rotary is not None:
            return self.rotary
        pairs = int(self.head_dim * self.rotary_share) // 2
        return tuple(i / pairs for i in range(pairs))

    @property
    def parametrization(self) -> str:
        """`sp`, `mup` or `completep`, by which sizes the base shape has."""
        if self.mup_base_d_model is None:
            return "sp"
        return "mup" if self.mup_base_n_layers is None else "completep"

    @property
    def residual_mult(self) -> float:
        """Factor on what a branch adds to the residual stream (CompleteP, 2505.01618)."""
        if self.mup_base_n_layers is None or self.n_layers == 0:
            return 1.0
        return self.mup_base_n_layers / self.n_layers

    def with_(self, **changes: Any) -> ModelConfig:
        """The same model with some fields replaced."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `ModelConfig(**d)` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
