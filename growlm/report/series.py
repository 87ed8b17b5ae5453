"""From the step records to curves small enough for a page: columns, smoothing, down-sampling. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

POINTS = 1500

Record = dict[str, Any]
Curve = tuple[list[int], list[float]]  # steps, values


def number(value: Any) -> float:
    """`value` as a float; NaN for null and for anything that is no number (records are untrusted)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def or_none(value: Any) -> float | None:
    """`value` as a finite float, else None: what JSON can hold."""
    x = number(value)
    return x if math.isfinite(x) else None


def column(records: Sequence[Record], key: str) -> np.ndarray:
    """(N,) float64 of field `key`; NaN where it is null or missing."""
    return np.array([number(r.get(key)) for r in records], dtype=np.float64)


def applied_loss(steps: Sequence[Record]) -> np.ndarray:
    """(N,) training loss; NaN for steps that were skipped."""
    loss = column(steps, "loss")
    loss[[r.get("applied") is False for r in steps]] = np.nan
    return loss


def numbers_of(record: Record, field: str) -> dict[str, float]:
    """The finite numbers in a table of a record, by name; empty where it has none."""
    table = record.get(field)
    if not isinstance(table, dict):
        return {}
    return {str(name): x for name, v in table.items() if (x := or_none(v)) is not None}


def losses_of(valid: Record) -> dict[str, float]:
    """Validation loss per source of one record."""
    return numbers_of(valid, "losses")


def smooth(values: np.ndarray, half_width: int | None = None) -> np.ndarray:
    """(N,) centred moving average that ignores NaN; by default over one sixtieth of the curve."""
    half = max(2, len(values) // 120) if half_width is None else half_width
    good = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(good)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    with np.errstate(invalid="ignore"):
        return (total[high] - total[low]) / (count[high] - count[low])


def thin(steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> Curve:
    """At most `points` points with the smallest and largest value of every bucket; NaN are dropped."""
    good = np.isfinite(values)
    steps, values = steps[good], values[good]
    if len(steps) > points:
        edges = np.linspace(0, len(steps), points // 2 + 1).astype(int)
        low = [a + int(values[a:b].argmin()) for a, b in pairwise(edges)]
        high = [a + int(values[a:b].argmax()) for a, b in pairwise(edges)]
        keep = np.unique(low + high)
        steps, values = steps[keep], values[keep]
    return [int(s) for s in steps], [float(f"{v:.6g}") for v in values]


def axes_of(steps: Sequence[Record], points: int = POINTS) -> dict[str, list[float] | None]:
    """Step -> tokens, FLOPs, seconds, cost: knots of curves that are straight in between.

    Every x-axis of the page is `step` looked up here, so all that a run records needs only its step.
    The ends of every stage are knots. An axis that was never recorded (cost without a price) is None.
    """
    stage = column(steps, "stage")
    ends = np.flatnonzero(np.diff(stage)) if len(steps) > 1 else np.array([], dtype=int)
    even = np.linspace(0, max(len(steps) - 1, 0), min(points, max(len(steps), 1))).astype(int)
    knots = np.unique(np.concatenate([even, ends, ends + 1]).astype(int)) if steps else np.array([], int)
    table: dict[str, list[float] | None] = {}
    fields = {
        "step": "step",
        "tokens": "tokens",
        "flops": "flops",
        "seconds": "train_seconds",
        "cost": "cost",
    }
    for axis, field in fields.items():
        values = column([steps[k] for k in knots], field)
        if axis == "cost" and not np.isfinite(values).any():
            table[axis] = None
            continue
        rising = np.maximum.accumulate(np.concatenate([[0.0], np.nan_to_num(values)]))
        table[axis] = [float(f"{v:.9g}") for v in rising]
    return table
