"""The sizes that a planned run can have: shapes of the Llama kind that can grow into each other. No torch.

All share head_dim and the ratio of query to key/value heads, so that one search of hyper-parameters serves
every stage. d_model is a multiple of what keeps heads whole and kernels fast, the feed-forward layer 8/3 of
it in units of 256, and depth such that d_model / n_layers is between 64 and 136, as in published models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from growlm.model.parameters import n_parameters
from growlm.recipe.shape import ModelConfig

QUERIES_PER_KV = 4
DEPTHS = (128, 112, 98, 84)
"""d_model / n_layers: Llama 7B and 13B have 128, Llama 65B 102, 1B models about 90."""

APART, WIDE = 1.07, 100.0
"""Least ratio of neighbouring sizes, about; twice as far apart in a range wider than WIDE times."""


def ladder(low: float, high: float, *, vocab_size: int, head_dim: int) -> list[ModelConfig]:
    """Shapes of `low` to `high` parameters, embedding included, by size: of those nearly as large, one."""
    found: dict[int, tuple[int, ModelConfig]] = {}
    unit, apart = head_dim * QUERIES_PER_KV, APART if high < WIDE * low else APART**2
    for d_model in range(unit, 64 * unit + 1, unit):
        sizes = {n_parameters(config): config for config in _of_width(d_model, vocab_size, head_dim)}
        for size, config in sizes.items():
            if low <= size <= high:
                place = int(math.log(size) / math.log(apart))
                found[place] = min(found.get(place, (size, config)), (size, config), key=lambda item: item[0])
        if min(sizes) > high:
            break
    return [config for _, (_, config) in sorted(found.items(), key=lambda item: item[0])]


def fits_into(small: ModelConfig, large: ModelConfig) -> bool:
    """Whether no axis of `small` is larger than that of `large`."""
    return all(getattr(small, axis) <= getattr(large, axis) for axis in ("d_model", "d_ff", "n_layers"))


def _of_width(d_model: int, vocab_size: int, head_dim: int) -> Iterator[ModelConfig]:
    for ratio in DEPTHS:
        even = 4 if d_model >= 3072 else 2
        layers = max(even, round(d_model / ratio / even) * even)
        yield _llama(d_model, layers, vocab_size, head_dim)


def _llama(d_model: int, n_layers: int, vocab_size: int, head_dim: int) -> ModelConfig:
    heads = d_model // head_dim
    return ModelConfig(
        family="llama",
        d_model=d_model,
        n_heads=heads,
        n_kv_heads=heads // QUERIES_PER_KV,
        head_dim=head_dim,
        d_ff=round(d_model * 8 / 3 / 256) * 256,
        n_layers=n_layers,
        vocab_size=vocab_size,
    )
