"""Growth masks (MSG, 2305.02869): new units enter the network behind one number that goes 0 -> 1.

At 0 the network computes exactly what it computed before the growth, whatever the new weights are;
at 1 the masks are gone. For a pre-norm decoder they sit

    d_model   on every norm's statistics and output     ffn      on the hidden activations
    q         on the attention output of new units      layers   on both branches of new blocks
    score     on new units of the queries (axis q)      vocab    as log(value) on the logits of new tokens
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Ramp:
    """Which units are new, as index ranges per axis, and which layers; over how many steps they enter."""

    steps: int
    axes: Mapping[str, Ranges]
    layers: tuple[int, ...] = ()

    def value(self, stage_step: int) -> float:
        """The mask after `stage_step` optimizer steps of the stage."""
        return 1.0 if stage_step >= self.steps else stage_step / self.steps

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types; `Ramp.from_dict` is the inverse."""
        return {
            "steps": self.steps,
            "axes": {k: [list(r) for r in v] for k, v in self.axes.items()},
            "layers": list(self.layers),
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, object]) -> Ramp:
        """The inverse of `to_dict`."""
        axes: dict[str, list[list[int]]] = d["axes"]  # type: ignore[assignment]
        layers: list[int] = d["layers"]  # type: ignore[assignment]
        ranges = {k: tuple((a, b) for a, b in v) for k, v in axes.items()}
        return cls(steps=int(str(d["steps"])), axes=ranges, layers=tuple(layers))


class Masks:
    """A ramp at one value, as tensors ready for the forward pass: of one of the ranks that split the axes.

    They are made on the device: copies would wait for it, in every step. The value itself is a tensor, too:
    a compiled block would take a number for a constant.
    """

    def __init__(
        self,
        ramp: Ramp,
        value: float,
        sizes: Mapping[str, int],
        device: torch.device,
        split: tuple[int, int] = (0, 1),
    ) -> None:
        def vector(key: str, new: float, old: float, *, axis: str | None = None) -> Tensor | None:
            if not ramp.axes.get(key):
                return None
            mask = torch.full((sizes[axis or key],), old, dtype=torch.float64, device=device)
            for start, stop in ramp.axes[key]:
                mask[start:stop] = new
            return mask

        def local(mask: Tensor | None) -> Tensor | None:
            return mask if mask is None else mask.chunk(split[1])[split[0]]

        score = vector("score", value, 1.0, axis="q")
        self.value = value
        self.d_model = vector("d_model", value, 1.0)
        self.q = local(vector("q", value, 1.0))
        self.score = local(score)
        # Heads share their gains, so a unit that is new in the old heads is new in all.
        self.head = None if score is None else score.view(-1, sizes["head_dim"]).amax(0)
        self.ffn = local(vector("ffn", value, 1.0))
        self.logit_bias = local(vector("vocab", math.log(value) if value > 0 else -math.inf, 0.0))
        self.layers = frozenset(ramp.layers)
        self._gate = torch.full((), value, dtype=torch.float64, device=device)

    def gate(self, layer: int) -> Tensor | None:
        """Factor on the branches of a block, a scalar; None for 1."""
        return self._gate if layer in self.layers else None
