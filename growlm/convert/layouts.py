"""How other libraries put several parameters into one tensor, or store one in another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from growlm.recipe.shape import ModelConfig


@dataclass(frozen=True)
class Layout:
    """pack(parts, config) is the foreign tensor; unpack(foreign, rows of each part, config) has the parts."""

    pack: Callable[[Sequence[Tensor], ModelConfig], Tensor]
    unpack: Callable[[Tensor, Sequence[int], ModelConfig], Sequence[Tensor]]


def _pack_heads(parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
    heads = [p.unflatten(0, (config.n_heads, config.head_dim)) for p in parts]  # each H E ...
    return torch.stack(heads, 1).flatten(0, 2)


def _unpack_heads(whole: Tensor, rows: Sequence[int], config: ModelConfig) -> Sequence[Tensor]:
    heads = whole.unflatten(0, (config.n_heads, len(rows), config.head_dim))  # H parts E ...
    return [part.flatten(0, 1) for part in heads.unbind(1)]


JOINED = Layout(
    pack=lambda parts, _: torch.cat(list(parts)),
    unpack=lambda whole, rows, _: whole.split(list(rows)),
)
"""Parts one after the other along the rows."""

CONV1D = Layout(
    pack=lambda parts, _: torch.cat(list(parts)).T,
    unpack=lambda whole, rows, _: whole.T.split(list(rows)),
)
"""The same, stored (in, out), as the Conv1D of GPT-2 has it."""

PER_HEAD = Layout(pack=_pack_heads, unpack=_unpack_heads)
"""Head by head its rows of every part, as GPT-NeoX fuses query, key and value."""

OFFSET2 = Layout(
    pack=lambda parts, _: torch.cat([parts[0].new_zeros(2, parts[0].shape[1]), parts[0]]),
    unpack=lambda whole, _, __: [whole[2:]],
)
"""Two rows before the first position, which OPT reads for padding only: written as zeros."""
