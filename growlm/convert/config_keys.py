"""Reading a foreign config.json: typed keys, and one clear error for what GrowLM does not do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from growlm.errors import CheckpointError
from growlm.recipe.shape import ModelConfig

Json = Mapping[str, Any]


_CORRECT = "correct it in config.json, or get that file again from where the model came from"
_OTHER = "take another model: without what this key asks for, this one would compute something else"


def refuse(key: str, why: str, fix: str = _CORRECT) -> CheckpointError:
    """The error for a key of config.json."""
    return CheckpointError(
        "this model's config.json cannot be used", where=f"config.json: {key}", why=why, fix=fix
    )


def count(config: Json, key: str, default: int | None = None, *, least: int = 1) -> int:
    """A whole number; `default` where the key is missing or null. Raises CheckpointError."""
    value = config.get(key)
    if value is None:
        if default is None:
            raise refuse(key, "it is missing, and the model's shape follows from it")
        return default
    if type(value) is not int or not least <= value < 1 << 40:
        raise refuse(key, f"{value!r} is not a whole number of at least {least}")
    return value


def number(config: Json, key: str, default: float) -> float:
    """A positive finite number; `default` where the key is missing or null. Raises CheckpointError."""
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise refuse(key, f"{value!r} is not a positive number")
    return float(value)


def flag(config: Json, key: str, default: bool) -> bool:
    """A truth value; `default` where the key is missing or null. Raises CheckpointError."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise refuse(key, f"{value!r} is neither true nor false")
    return value


def require(config: Json, key: str, allowed: Collection[Any]) -> None:
    """Raise CheckpointError unless the key is missing, null or one of `allowed`."""
    value = config.get(key)
    if value is not None and value not in allowed:
        names = " or ".join(repr(a) for a in allowed)
        raise refuse(key, f"{value!r} is a forward pass that GrowLM does not have; {names} is", _OTHER)


def context(config: Json, key: str, window: bool | None) -> int | None:
    """The positions that a model can tell apart; None if config.json does not say.

    Up to its length a sliding window is no window at all, so the context ends there. `window`: whether it is
    on where `use_sliding_window` is missing; None for models without.
    """
    limits = [count(config, key)] if config.get(key) is not None else []
    if window is not None and flag(config, "use_sliding_window", window) and config.get("sliding_window"):
        limits.append(count(config, "sliding_window"))
    return min(limits, default=None)


def read_rope(config: Json, theta_key: str, share_key: str | None, share: float) -> dict[str, Any]:
    """rope_theta, rotary_share and rope_scaling of a config.json of transformers 4 or 5.

    Version 5 has them in `rope_parameters`, version 4 beside each other and in `rope_scaling`; `share` is the
    rotated share of a head where `share_key` is missing, and fixed without such a key. Raises CheckpointError
    for a scaling other than Llama 3's.
    """
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(config.get(key) or {}, dict):
            raise refuse(key, "it is not a table")
        rope |= config.get(key) or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3") or any(isinstance(v, dict) for v in rope.values()):
        raise refuse(
            "rope_scaling", f"rotary positions of type {kind!r}; GrowLM has 'default' and 'llama3'", _OTHER
        )
    scaling = None
    if kind == "llama3":
        if rope.get("original_max_position_embeddings") is None:
            rope["original_max_position_embeddings"] = count(config, "max_position_embeddings")
        scaling = (
            number(rope, "factor", 8.0),
            number(rope, "low_freq_factor", 1.0),
            number(rope, "high_freq_factor", 4.0),
            number(rope, "original_max_position_embeddings", 0.0),
        )
    for table in (rope, config):
        if share_key is None:
            require(table, "partial_rotary_factor", [share])
    return {
        "rope_theta": number(rope, "rope_theta", number(config, theta_key, 10000.0)),
        "rotary_share": number(rope, "partial_rotary_factor", number(config, share_key or "", share)),
        "rope_scaling": scaling,
    }


def write_rope(config: ModelConfig, theta_key: str, share_key: str | None) -> dict[str, Any]:
    """The same keys for transformers 4 and 5."""
    scaling: dict[str, Any] | None = None
    if config.rope_scaling:
        factor, low, high, original = config.rope_scaling
        scaling = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": int(original),
        }
    share = {share_key: config.rotary_share} if share_key else {}
    partial = {"partial_rotary_factor": config.rotary_share} if share_key else {}
    parameters = {**(scaling or {"rope_type": "default"}), "rope_theta": config.rope_theta, **partial}
    return {theta_key: config.rope_theta, **share, "rope_scaling": scaling, "rope_parameters": parameters}


def read_multipliers(config: Json, d_model: int) -> dict[str, Any]:
    """input_mult, logit_mult and muP's base width of FLM-101B and Tele-FLM: logits * output_mult / factor."""
    if not flag(config, "use_mup", False):
        return {}
    factor = number(config, "mup_scale_factor", 1.0)
    base = d_model / factor
    return {
        "input_mult": number(config, "input_mult", 1.0),
        "logit_mult": number(config, "output_mult", 1.0) / factor,
        "mup_base_d_model": int(base) if factor != 1 and base == int(base) else None,
    }


def write_multipliers(config: ModelConfig) -> dict[str, Any]:
    """The same keys, such that the quotient of the last two is the logit multiplier to the last bit."""
    factor = config.d_model / (config.mup_base_d_model or config.d_model)
    if config.logit_mult * factor / factor != config.logit_mult:
        factor = 1.0
    return {
        "use_mup": True,
        "input_mult": config.input_mult,
        "output_mult": config.logit_mult * factor,
        "mup_scale_factor": factor,
    }
