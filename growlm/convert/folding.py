"""Which models a dialect can express, and multipliers folded into weights where it has no key for them."""

from __future__ import annotations

import math
from typing import Any

import torch

from growlm.convert.dialect import Dialect
from growlm.errors import CheckpointError
from growlm.model.parameters import parameter_table
from growlm.recipe.families import FAMILIES
from growlm.recipe.shape import ModelConfig

_MULTIPLIERS = ("input_mult", "logit_mult", "attn_mult")
_KEEP = "export it as GrowLM's own class, which `import growlm.hf` adds to transformers: --as growlm"


def folded(config: ModelConfig, dialect: Dialect) -> ModelConfig:
    """The config as the dialect states it: the multipliers that it has no key for are 1, folded into weights.

    Raises CheckpointError if the dialect cannot express the model.
    """
    if dialect.family not in ("", config.family):
        raise _unfit(config, dialect, f"its models are of family {dialect.family}")
    try:
        stated = dialect.read_config(dialect.write_config(config))
    except CheckpointError as error:
        raise _unfit(config, dialect, f"{error.where.removeprefix('config.json: ')}: {error.why}") from error
    result = config.with_(**{name: getattr(stated, name) for name in _MULTIPLIERS})
    if stated.residual_mult != config.residual_mult:
        result = result.with_(mup_base_n_layers=stated.mup_base_n_layers)
    said, meant = _canonical(stated).to_dict(), _canonical(result).to_dict()
    lost = [name for name in meant if said[name] != meant[name]]
    if lost:
        name = lost[0]
        raise _unfit(config, dialect, f"it has no way to say {name} = {meant[name]!r}")
    return result


def foldings(config: ModelConfig, dialect: Dialect, dtype: torch.dtype) -> dict[str, float]:
    """Factors on parameters, by name, that make up for the multipliers that `folded` took away.

    A factor is exact if it is a power of two; others are let through where a weight keeps 24 bits or more.
    Raises CheckpointError if a factor is not exact in the stored `dtype`.
    """
    to = folded(config, dialect)
    into = config.input_mult / to.input_mult
    out = config.logit_mult / to.logit_mult / (into if config.tied else 1.0)
    attn = config.attn_mult / to.attn_mult
    factors = {}
    for name, p in parameter_table(config).items():
        if name in ("embedding.weight", "position.weight"):
            factors[name] = into if name == "embedding.weight" else 1.0
        elif name in ("norm.weight", "norm.bias"):
            factors[name] = out
        elif _scales_scores(name, config):
            factors[name] = attn
        elif p.writes_residual:  # of a block, the embedding being done
            factors[name] = config.residual_mult / to.residual_mult
    factors = {name: factor for name, factor in factors.items() if factor != 1.0}
    for name, factor in factors.items():
        if math.frexp(factor)[0] != 0.5 and dtype.itemsize < 4:
            raise CheckpointError(
                f"dialect {dialect.name} has no multipliers, and this model has",
                where=name,
                why=f"{factor:.6g}, a factor of {name} in their place, is not exact in {dtype}",
                fix=f"--dtype fp32, or {_KEEP}",
            )
    return factors


def _scales_scores(name: str, config: ModelConfig) -> bool:
    """Whether a parameter's size multiplies q.k: the gain of the query norm, or the query projection."""
    if _has_head_norms(config):
        return name.endswith("attn.q_norm.weight")
    return ".attn.q_proj." in name


def _has_head_norms(config: ModelConfig) -> bool:
    return "blocks.0.attn.q_norm.weight" in parameter_table(config)


def _canonical(config: ModelConfig) -> ModelConfig:
    """The config with every field that its forward pass does not read set to its default."""
    position = FAMILIES[config.family].position
    changes: dict[str, Any] = {"init_std": 0.02, "mup_base_d_model": None, "mup_base_hidden": None}
    changes["mup_base_n_layers"] = None
    if config.head_norm_eps == config.norm_eps or not _has_head_norms(config):
        changes["head_norm_eps"] = None
    if position != "xpos":
        changes["xpos_scale_base"] = 512.0
    if position == "learned":
        changes |= {"rope_theta": 10000.0, "rope_scaling": None, "rotary": None, "rotary_share": 1.0}
    else:
        changes["max_positions"] = None
    return config.with_(**changes)


def _unfit(config: ModelConfig, dialect: Dialect, why: str) -> CheckpointError:
    return CheckpointError(
        f"a model of family {config.family} cannot be written as {dialect.name}", why=why, fix=_KEEP
    )
