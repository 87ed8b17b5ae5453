"""What a dialect is: one way in which other software names and lays out the same parameters.

The dialects themselves are tables in `dialects.py`; `folder.py` reads folders, `shards.py` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from growlm.recipe.shape import ModelConfig

Pack = Callable[[Sequence[Tensor]], Tensor]
Unpack = Callable[[Tensor, str], Tensor]


@dataclass(frozen=True)
class ForeignTensor:
    """One tensor of a foreign file and the GrowLM parameters (`parts`) that it holds.

    A plain tensor (`pack` and `unpack` are None) is its only part, row for row. Any other is made whole:
    pack(parts in order) is the foreign tensor, unpack(foreign tensor, part's name) the part.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    pack: Pack | None = None
    unpack: Unpack | None = None


@dataclass(frozen=True)
class Dialect:
    """A table of tensors and a config.json, readable and writable.

    `family`: the family of its models; empty means any.
    `native`: plain transformers loads it, without remote code and without `import growlm.hf`.
    `prefix`: what the names lose when a model was saved without its head, as the first GPT-2 was.
    `ignored`: names (a regular expression) of buffers that the forward pass recomputes.
    `keys`: the config.json key of each ModelConfig field that has one of its own.
    """

    name: str
    model_type: str
    family: str
    native: bool
    prefix: str
    ignored: str
    keys: Mapping[str, str]
    read_config: Callable[[Mapping[str, Any]], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    tensors: Callable[[ModelConfig], list[ForeignTensor]]

    def tensors_in(self, config: ModelConfig, names: Collection[str]) -> list[ForeignTensor]:
        """The tensors of a folder that holds `names`, under the names they have there."""
        tensors = self.tensors(config)
        if not self.prefix or any(name.startswith(self.prefix) for name in names):
            return tensors
        return [replace(t, name=t.name.removeprefix(self.prefix)) for t in tensors]

    def ignores(self, name: str, config: ModelConfig) -> bool:
        """Whether a tensor of that name may be in the folder and means nothing."""
        if re.fullmatch(self.ignored, name):
            return True
        return config.tied and name in {t.name for t in self.tensors(config.with_(tied=False))}
