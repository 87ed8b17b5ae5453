"""Which steps are not applied. Decided before the moments are touched; the history is part of the state.

Median and MAD instead of mean and deviation: one outlier in the window moves neither, and a NaN never
enters it.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from growlm.recipe.schema import GuardTable

MAD_TO_SIGMA = 1.4826  # for a normal distribution
# Of the median, so that a very quiet stretch does not make everything a spike; gradients are never quiet.
SMALLEST_SIGMA = {"loss": 0.02, "gradient norm": 0.1}


class SpikeGuard:
    """Judges a step by its loss and gradient norm against the accepted steps before it."""

    def __init__(self, settings: GuardTable) -> None:
        self.settings = settings
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.skips_in_row = 0
        self.spikes_in_row = 0

    def judge(self, loss: float, grad_norm: float, stage_step: int) -> str | None:
        """Why this step must be skipped, or None; an accepted step enters the history.

        A spike that lasts over several batches is the model's, not the data's: skipping leaves the model
        where it is, and every next batch spikes too. After `spike_patience` of them the step is applied,
        clipped, which is what leads away from there (docs/log.md, 2026-11-22).
        """
        reason = _not_finite(loss, grad_norm)
        if reason is None:
            spike = self._spike(loss, grad_norm, stage_step)
            self.spikes_in_row = self.spikes_in_row + 1 if spike else 0
            reason = spike if self.spikes_in_row <= self.settings.spike_patience else None
        if reason:
            self.skips_in_row += 1
            return reason
        self.skips_in_row = 0
        self.losses = [*self.losses, loss][-self.settings.window :]
        self.grad_norms = [*self.grad_norms, grad_norm][-self.settings.window :]
        return None

    def _spike(self, loss: float, grad_norm: float, stage_step: int) -> str | None:
        if stage_step < self.settings.grace_steps:
            return None
        for name, value, history in (
            ("loss", loss, self.losses),
            ("gradient norm", grad_norm, self.grad_norms),
        ):
            sigmas = _sigmas_above(value, history, SMALLEST_SIGMA[name])
            if sigmas > self.settings.spike_sigmas:
                return f"{name} {value:.4g} is {sigmas:.1f} robust sigmas above its median"
        return None

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


def _not_finite(loss: float, grad_norm: float) -> str | None:
    if not math.isfinite(loss):
        return f"loss is {loss}"
    return None if math.isfinite(grad_norm) else f"gradient norm is {grad_norm}"


def _sigmas_above(value: float, history: list[float], smallest: float) -> float:
    if len(history) < 16:
        return 0.0
    median = statistics.median(history)
    mad = statistics.median([abs(x - median) for x in history])
    return (value - median) / max(MAD_TO_SIGMA * mad, smallest * abs(median), 1e-12)
