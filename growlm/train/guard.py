"""Which steps are not applied. Decided before the moments are touched; the history is part of the state.

Median and MAD instead of mean and deviation: one outlier in the window moves neither, and a NaN never
enters it.

The host makes limits of the history, the device compares with them, and the optimizer takes the answer as a
tensor: `limits`, `decide`, `take`. To decide on the host it would have to wait for the loss before it
can queue the update, and the GPU would run dry at every step.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from torch import Tensor, isfinite

from growlm.recipe.running import GuardTable

MAD_TO_SIGMA = 1.4826  # for a normal distribution
# Of the median, so that a very quiet stretch does not make everything a spike; gradients are never quiet.
SMALLEST_SIGMA = {"loss": 0.02, "gradient norm": 0.1}
SHORTEST_HISTORY = 16  # accepted steps before anything is a spike


def decide(loss: Tensor, grad_norm: Tensor, limits: tuple[float, float]) -> Tensor:
    """1 if this step must be skipped, else 0: fp32, 0-dim, on the device of `loss`, without waiting for it.

    In fp64, as the host compares: a limit rounded to fp32 could fall on the other side of a value.
    """
    loss, grad_norm = loss.double(), grad_norm.double()
    finite = isfinite(loss) & isfinite(grad_norm)
    return (~(finite & (loss <= limits[0]) & (grad_norm <= limits[1]))).float()


class SpikeGuard:
    """Judges a step by its loss and gradient norm against the accepted steps before it."""

    def __init__(self, settings: GuardTable) -> None:
        self.settings = settings
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.skips_in_row = 0
        self.spikes_in_row = 0

    def limits(self, stage_step: int) -> tuple[float, float]:
        """The largest loss and gradient norm that `stage_step` is applied with, for `decide`.

        A spike that lasts over several batches is the model's, not the data's: skipping leaves the model
        where it is, and every next batch spikes too. After `spike_patience` of them the step is applied,
        clipped, which is what leads away from there (docs/log.md, 2026-11-22).
        """
        if self.spikes_in_row >= self.settings.spike_patience:
            return math.inf, math.inf
        return self._spikes_above(stage_step)

    def take(self, loss: float, grad_norm: float, skipped: bool, stage_step: int) -> str | None:
        """Remember a step as it was decided; why it was skipped, or None.

        An accepted step enters the history.
        """
        if math.isfinite(loss) and math.isfinite(grad_norm):
            largest = self._spikes_above(stage_step)
            spike = skipped or loss > largest[0] or grad_norm > largest[1]
            self.spikes_in_row = self.spikes_in_row + 1 if spike else 0
        if skipped:
            self.skips_in_row += 1
            return self._reason(loss, grad_norm)
        self.skips_in_row = 0
        self.losses = [*self.losses, loss][-self.settings.window :]
        self.grad_norms = [*self.grad_norms, grad_norm][-self.settings.window :]
        return None

    def _spikes_above(self, stage_step: int) -> tuple[float, float]:
        """The largest loss and gradient norm that are no spikes."""
        if stage_step < self.settings.grace_steps or len(self.losses) < SHORTEST_HISTORY:
            return math.inf, math.inf
        (loss, loss_sigma), (norm, norm_sigma) = self._normal()
        sigmas = self.settings.spike_sigmas
        return loss + sigmas * loss_sigma, norm + sigmas * norm_sigma

    def _normal(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Median and robust sigma of the losses and of the gradient norms."""
        return (
            _median_and_sigma(self.losses, SMALLEST_SIGMA["loss"]),
            _median_and_sigma(self.grad_norms, SMALLEST_SIGMA["gradient norm"]),
        )

    def _reason(self, loss: float, grad_norm: float) -> str:
        """What was wrong with a skipped step: what is not finite, or else is furthest above its median."""
        values = {"loss": loss, "gradient norm": grad_norm}
        for name, value in values.items():
            if not math.isfinite(value):
                return f"{name} is {value}"
        above = {
            name: (value - median) / sigma
            for (name, value), (median, sigma) in zip(values.items(), self._normal(), strict=True)
        }
        worst = max(above, key=above.__getitem__)
        return f"{worst} {values[worst]:.4g} is {above[worst]:.1f} robust sigmas above its median"

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "losses": self.losses,
            "grad_norms": self.grad_norms,
            "skips_in_row": self.skips_in_row,
            "spikes_in_row": self.spikes_in_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.losses, self.grad_norms = list(state["losses"]), list(state["grad_norms"])
        self.skips_in_row, self.spikes_in_row = state["skips_in_row"], state["spikes_in_row"]


def _median_and_sigma(history: list[float], smallest: float) -> tuple[float, float]:
    """Of so much history as a limit needs; `smallest` is the least sigma, relative to the median."""
    median = statistics.median(history)
    mad = statistics.median([abs(x - median) for x in history])
    return median, max(MAD_TO_SIGMA * mad, smallest * abs(median), 1e-12)
