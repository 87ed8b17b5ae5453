"""Planning a growth for which the operator looks at the old weights first."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from growlm.growth.learned import with_learned
from growlm.growth.operators import Growth, plan_growth
from growlm.growth.streaming import layer_distances
from growlm.growth.weights import Weights
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig


def prepare_growth(
    old: Weights,
    target: ModelConfig,
    table: GrowthTable,
    *,
    seed: int,
    tokens: Tensor,
    batches: Iterable[tuple[Tensor, Tensor]] | None,
    has_state: bool,
) -> Growth:
    """`plan_growth`, with what two operators need.

    Depth `distance` measures every block on `tokens` (B, T); `ligo` learns from `batches` of (tokens,
    targets). Raises GrowthError, before anything is touched.
    """
    distances = block_distances(old, target, table, tokens)
    plan = plan_growth(old.config, target, table, seed=seed, distances=distances, has_state=has_state)
    return with_learned(plan, old, batches)


def block_distances(
    old: Weights, target: ModelConfig, table: GrowthTable, tokens: Tensor
) -> list[float] | None:
    """What depth `distance` chooses by, measured on tokens (B, T); None for another growth."""
    deeper = table.depth == "distance" and target.n_layers > old.config.n_layers
    return layer_distances(old, tokens) if deeper else None
