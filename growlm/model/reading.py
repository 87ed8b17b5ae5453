"""Reading tokens that are no plain text from its start: after others that are cached, or as a tree.

In training token t of a row stands at position t and sees all before it. Inference also reads the tokens
behind a cached text, and trees: texts with a common beginning laid in one row, where a token sees its own
beginning only. A `Reading` says where each token stands and what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from growlm.model.positions import Tables, tables_at
from growlm.recipe.families import Family
from growlm.recipe.shape import ModelConfig


class KeyValues:
    """Keys, rotated, and values of the tokens read so far, in every layer: (B, K, S, E) each.

    The token at position p of row b lies in slot p, so rows of different lengths share a cache. What lies
    behind the last token of a row is not yet written, or padding that the next token overwrites. xPos
    scales a key by its distance from the middle of the slots, which stays where it is (see positions.py).
    """

    def __init__(
        self, config: ModelConfig, rows: int, slots: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (config.n_layers, 2, rows, config.n_kv_heads, slots, config.head_dim)
        self.layers = torch.zeros(shape, device=device, dtype=dtype)
        self.slots = slots

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows only, in this order; rows (N)."""
        self.layers = self.layers[:, :, rows].contiguous()


@dataclass(frozen=True)
class Reading:
    """Where tokens (B, T) stand, and what they see of the S slots of a cache or of themselves (S = T)."""

    positions: Tensor
    """(B, T), less than `length`."""
    length: int
    """Positions that there are: the same for everything that is read into one cache."""
    seen: Tensor | None
    """(B, 1, T, S) of bool; None: T = 1 and every slot is seen."""
    cache: KeyValues | None = None
    slots: int = 0
    """Of the cache, how many are read: S."""
    start: int | None = field(default=None, kw_only=True)
    """The position of every row's first token, where all rows stand together and in order."""

    def layer(self, index: int) -> Layer:
        """What the attention of a layer needs."""
        keys_values = None if self.cache is None else self.cache.layers[index][:, :, :, : self.slots]
        return Layer(self.positions, keys_values, start=self.start)

    def shared(self, config: ModelConfig, family: Family, dtype: torch.dtype) -> Shared:
        """What all layers need, in the dtype of their queries."""
        hidden = None
        if self.seen is not None:  # added to the scores; the queries of a group are stacked along time
            hidden = torch.zeros(self.seen.shape, dtype=dtype, device=self.seen.device)
            hidden = hidden.masked_fill_(~self.seen, -torch.inf).repeat(
                1, 1, config.n_heads // config.n_kv_heads, 1
            )
        return Shared(tables_at(config, family, self.length, self.positions, dtype), hidden)


@dataclass(frozen=True)
class Shared:
    """Of a `Reading`, the same for every layer: the tables of positions, if the family rotates, and what is
    added to the scores of stacked queries, (B, 1, H/K*T, S)."""

    tables: Tables | None = None
    hidden: Tensor | None = None


@dataclass(frozen=True)
class Layer:
    """A `Reading` for one layer, with its part (2, B, K, S, E) of the cache."""

    positions: Tensor
    keys_values: Tensor | None
    start: int | None = field(default=None, kw_only=True)
    shared: Shared = field(default=Shared(), kw_only=True)

    def with_shared(self, shared: Shared) -> Layer:
        """This layer with what all have."""
        return replace(self, shared=shared)

    def remember(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values (B, K, T, E) of the tokens where they stand; all of S slots, (B, K, S, E)."""
        if self.keys_values is None:
            return k, v
        keys, values = self.keys_values[0], self.keys_values[1]
        if self.start is not None:
            keys[:, :, self.start : self.start + k.shape[2]] = k
            values[:, :, self.start : self.start + k.shape[2]] = v
        else:
            rows = torch.arange(len(k), device=k.device)[:, None]  # scatter_ of bf16 takes ten times as long
            keys[rows, :, self.positions] = k.transpose(1, 2)
            values[rows, :, self.positions] = v.transpose(1, 2)
        return keys, values


def behind(cache: KeyValues, positions: Tensor, *, together: bool = False) -> Reading:
    """Read tokens at positions (B, T) behind what is cached: each sees every slot up to its own.

    `together`: T is 1 and all rows stand at one position, so there is nothing to hide.
    """
    slots = int(positions.max()) + 1
    seen = None
    if not together:
        seen = torch.arange(slots, device=positions.device) <= positions[:, None, :, None]
    return Reading(positions, cache.slots, seen, cache, slots)
