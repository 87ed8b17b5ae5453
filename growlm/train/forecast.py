"""At every evaluation: where the loss of this stage will end, on record; a warning when it stays above.

The forecast is of the training loss of running text, which is measured at every step, and of the current
stage alone: what a growth does to the loss is not in any law (growlm/scaling/forecast.py).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from growlm.scaling.curves import Curve, checked
from growlm.scaling.forecast import LEVEL_SIGMAS, Forecast, forecast
from growlm.train.record import RecordReader
from growlm.train.schedule import learning_rate

if TYPE_CHECKING:
    from growlm.train.session import Session
    from growlm.train.state import TrainState

_SCHEDULE_POINTS = 2000
_LEFT = 1.5
"""Half widths of the 90 % band that count as having left it: once in a hundred times by chance."""
_PATIENCE = 2
"""Evaluations in a row above the band that make a warning: one is above it by chance now and then."""
_SUDDEN = 0.2
"""A fall of the rate by this share between two points of the schedule is a new start: what it gains is in no
forecast made before."""
_COST_SHARE = 0.01
_BACK_OFF = 600.0
"""Seconds until the next forecast after one that failed, doubled with each in a row."""


@dataclass
class Forecasts:
    """What rank 0 keeps between evaluations: the losses of the current stage and the forecasts made."""

    stage: int = -1
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    made: list[tuple[int, Forecast]] = field(default_factory=list)
    """Stage steps and what was forecast there."""
    outside: int = 0
    """Evaluations in a row that found the loss above its band."""
    failed: int = 0
    """Forecasts in a row that failed."""
    reader: RecordReader | None = None
    due: float = 0.0
    """When the next one may be made: forecasts take at most 1 % of the time."""

    def collect(self, session: Session, stage: int, start: int) -> int:
        """Take over what was recorded of a stage since the last time; how many losses that is.

        `start`: step at which the stage began.
        """
        if stage != self.stage:
            self.stage, self.outside = stage, 0
            self.steps, self.losses, self.made = [], [], []
        if self.reader is None:
            self.reader = RecordReader(session.recorder.path)
        before = len(self.steps)
        for r in self.reader.read():
            if r["kind"] == "step" and r.get("stage") == stage and r.get("applied"):
                loss = _of_language(r)
                if loss is not None:
                    self.steps.append(r["step"] - start)
                    self.losses.append(loss)
        self.reader.records.clear()
        return len(self.steps) - before


def _of_language(record: dict[str, Any]) -> float | None:
    """The loss that laws of loss are about: of running text, where a run learns other things too."""
    if "objectives" not in record:
        return record["loss"]
    return record["objectives"].get("language", {}).get("loss")


def forecast_stage(session: Session, state: TrainState) -> None:
    """Put a forecast of the current stage on record, if it is time for one. Never fails a run."""
    kept = session.forecasts
    if not session.world.main or time.monotonic() < kept.due:
        return
    started = time.perf_counter()
    try:
        _forecast(session, state, kept)
    except Exception as error:
        session.event(state.progress.step, f"no forecast: {type(error).__name__}: {error}")
        kept.due = time.monotonic() + _BACK_OFF * 2**kept.failed
        kept.failed += 1
        return
    kept.failed = 0
    kept.due = time.monotonic() + (time.perf_counter() - started) / _COST_SHARE


def _forecast(session: Session, state: TrainState, kept: Forecasts) -> None:
    p = state.progress
    start = p.step - p.stage_step
    new = kept.collect(session, p.stage, start)
    curve = _curve(session, p.stage, kept)
    begun = last_start(curve, p.stage_step)
    kept.made = [m for m in kept.made if m[0] >= begun]
    _watch(session, p.step, kept, new)
    made = forecast(curve)
    if made is None or p.stage_step >= session.recipe.stages[p.stage].steps:
        return
    kept.made.append((p.stage_step, made))
    path: dict[str, Any] = {
        "step": [round(s) + start for s in made.at],
        "loss": made.path.tolist(),
        "half": made.half.tolist(),
    }
    session.recorder.append(
        "forecast", step=p.step, stage=p.stage, final_loss=made.loss, low=made.low, high=made.high, path=path
    )
    session.console.say(
        f"forecast: this stage ends at a training loss of {made.loss:.3f} ({made.low:.3f} to {made.high:.3f})"
    )


def _curve(session: Session, stage: int, kept: Forecasts) -> Curve:
    """Schedule and losses of a stage, those of its warm-up and of its growth's ramp left out."""
    recipe = session.recipe
    steps = recipe.stages[stage].steps
    at = np.unique(np.linspace(0, steps - 1, min(steps, _SCHEDULE_POINTS)).astype(int))
    lr = np.array([learning_rate(recipe, stage, int(k)) for k in at])
    growth = recipe.growth_of(stage)
    settled = max(growth.ramp_steps, growth.rewarm_steps) if stage else 0
    steps_done, losses = np.array(kept.steps, dtype=float), np.array(kept.losses)
    keep = steps_done > settled
    return checked([Curve(recipe.stages[stage].name, at + 1.0, lr, steps_done[keep], losses[keep])])[0]


def _watch(session: Session, step: int, kept: Forecasts, new: int) -> None:
    """Warn when the losses since the last time, and those before, are above the band of the last forecast or
    of one made half-way. A loss below it is good news."""
    if new < 2 or not kept.made:
        return
    at, losses = np.array(kept.steps[-new:], dtype=float), np.array(kept.losses[-new:])
    half_way = min(kept.made, key=lambda m: abs(m[0] - at[-1] / 2))
    noise = LEVEL_SIGMAS * float(losses.std(ddof=1)) / math.sqrt(new)
    measured, middle = float(losses.mean()), float(at.mean())
    out = [(made_at, f.outside(middle, measured, noise)) for made_at, f in (kept.made[-1], half_way)]
    made_at, above = max(out, key=lambda o: o[1])
    kept.outside = kept.outside + 1 if above > _LEFT else 0
    if kept.outside == _PATIENCE:
        session.event(
            step,
            f"the loss has left its forecast: {measured:.3f} over the last {new} steps is above the band of "
            f"the forecast of {round(at[-1]) - made_at} steps ago, at {_PATIENCE} evaluations in a row",
            "warning",
        )


def last_start(curve: Curve, step: float) -> float:
    """The step up to `step` at which the rate last fell suddenly; 0 if it never did."""
    before, after = curve.lr[:-1], curve.lr[1:]
    falls = curve.step[1:][(after < (1 - _SUDDEN) * before) & (curve.step[1:] <= step)]
    return float(falls.max(initial=0.0))
