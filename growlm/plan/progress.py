"""How much of a run there is, and is left, by its recipe. No torch."""

from __future__ import annotations

from growlm.plan.flops import flops_per_token
from growlm.recipe.schema import Recipe


def total_tokens(recipe: Recipe) -> int:
    """Tokens of the whole run."""
    return sum(s.steps * s.tokens_per_step for s in recipe.stages)


def remaining_flops(recipe: Recipe, stage: int, tokens: float) -> float:
    """Model FLOPs to the end of the run, `tokens` into stage `stage`."""
    left = 0.0
    for i, s in enumerate(recipe.stages[stage:], start=stage):
        rest = s.steps * s.tokens_per_step - (tokens if i == stage else 0)
        left += max(0.0, rest) * flops_per_token(recipe.model_config_of(i), s.seq_len)
    return left
