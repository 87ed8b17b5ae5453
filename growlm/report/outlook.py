"""The newest forecast of a run as its page shows it. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from growlm.report.series import Record, column, number, or_none

_RECENT = 200
_FIELDS = {"tokens": "tokens", "flops": "flops", "seconds": "train_seconds", "cost": "cost"}


def outlook(forecasts: list[Record], steps: list[Record]) -> dict[str, Any] | None:
    """Predicted loss at the end of the current stage; None without a forecast of it that lies ahead.

    `path`: steps, expected losses and the 90 % band on the way; `pace`: per axis of the page, what one more
    step adds, from the last steps.
    """
    if not forecasts or not steps:
        return None
    newest, last = forecasts[-1], steps[-1]
    path = newest.get("path")
    if newest.get("stage") != last.get("stage") or not isinstance(path, dict):
        return None
    curve = [c if isinstance(c := path.get(key), list) else [] for key in ("step", "loss", "half")]
    if len({len(c) for c in curve}) > 1:
        return None
    at, loss, half = (np.array([number(v) for v in c]) for c in curve)
    good = np.isfinite(at) & np.isfinite(loss) & np.isfinite(half)
    at, loss, half = at[good], loss[good], half[good]
    if len(at) == 0 or at[-1] <= last["step"]:
        return None
    recent = [r for r in steps[-_RECENT:] if r.get("stage") == last.get("stage")]
    return {
        "step": newest["step"],
        "loss": or_none(newest.get("final_loss")),
        "low": or_none(newest.get("low")),
        "high": or_none(newest.get("high")),
        "now": last["step"],
        "path": {
            "step": at.tolist(),
            "loss": loss.tolist(),
            "low": (loss - half).tolist(),
            "high": (loss + half).tolist(),
        },
        "pace": {axis: _pace(recent, field) for axis, field in _FIELDS.items()},
    }


def _pace(steps: list[Record], field: str) -> float | None:
    """What one step adds to a field; None for one step alone."""
    at, values = column(steps, "step"), column(steps, field)
    return or_none(float((values[-1] - values[0]) / (at[-1] - at[0]))) if at[-1] > at[0] else None
