"""Runs with several objectives: loss and tokens of each, and how often held-out signals are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from growlm.report.series import Curve, Record, column, number, numbers_of, or_none, smooth, thin


def objectives_of(steps: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Per objective its loss, raw and as a moving average, and the tokens it has drawn; skipped steps do not
    count. Empty for a run with the objective `language` only, whose steps do not tell of it."""
    told = [_told(r) for r in steps]
    at = np.array([r["step"] for r in steps], dtype=np.float64)
    found = {}
    for name in dict.fromkeys(name for objectives in told for name in objectives):
        loss = np.array([number(o.get(name, {}).get("loss")) for o in told], dtype=np.float64)
        loss[[r.get("applied") is False for r in steps]] = np.nan
        tokens = (or_none(o.get(name, {}).get("tokens")) for o in reversed(told))
        found[name] = {
            "raw": thin(at, loss),
            "smooth": thin(at, smooth(loss)),
            "tokens": next((count for count in tokens if count is not None), 0.0),
        }
    return found


def by_source(valid: Sequence[Record], field: str) -> dict[str, Curve]:
    """Curves of a measurement that validation records by source, e.g. `losses` or `accuracy`."""
    told = [numbers_of(r, field) for r in valid]
    at = np.array([r["step"] for r in valid], dtype=np.float64)
    sources = sorted({source for numbers in told for source in numbers})
    return {
        source: thin(at, np.array([number(numbers.get(source)) for numbers in told], dtype=np.float64))
        for source in sources
    }


def tasks_of(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """The tasks that were measured on the way: curves of the score and of its 95 % interval, and what
    guessing scores; `items` and `cut`, prompts that were too long, are those of the last time."""
    at = np.array([r["step"] for r in records], dtype=np.float64)
    told = [_scores(r) for r in records]
    found = {}
    for name in dict.fromkeys(name for scores in told for name in scores):
        mine = [scores.get(name, {}) for scores in told]
        last = next(score for score in reversed(mine) if score)
        curves = {key: thin(at, column(mine, key)) for key in ("value", "low", "high")}
        found[name] = curves | {key: or_none(last.get(key)) for key in ("chance", "items", "cut")}
    return found


def _scores(record: Record) -> dict[str, dict[str, Any]]:
    scores = record.get("scores")
    if not isinstance(scores, list):
        return {}
    return {str(score.get("task")): score for score in scores if isinstance(score, dict)}


def _told(step: Record) -> dict[str, dict[str, Any]]:
    objectives = step.get("objectives")
    if not isinstance(objectives, dict):
        return {}
    return {str(name): told for name, told in objectives.items() if isinstance(told, dict)}
