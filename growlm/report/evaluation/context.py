"""Perplexity against context length: the curves of a page, and a picture that stands alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from growlm.evaluate.result import Result, Score
from growlm.plan.svg import COLORS, Chart

POSITION, LENGTH = "context/position", "context/length"
"""Groups of scores: the mean loss of the targets at some positions, and of all up to a length. The task is
the last position, the value nats per token."""

_SOFT = "#666666"


def contexts_of(results: Iterable[Result]) -> list[dict[str, Any]]:
    """The models whose context was stretched, each with its curve over positions and its table of lengths."""
    return [_context(result) for result in results if result.kind == "context"]


def _context(result: Result) -> dict[str, Any]:
    settings = result.settings
    return {
        "name": result.model.name,
        "trained": settings.get("trained"),
        "positions": settings.get("positions"),
        "source": settings.get("source"),
        "data": settings.get("data"),
        "windows": settings.get("windows"),
        "by_position": _curve(result.scores, POSITION),
        "by_length": _curve(result.scores, LENGTH),
    }


def _curve(scores: Iterable[Score], group: str) -> dict[str, list[float]]:
    """Perplexities with their intervals, by the last position of each bucket."""
    mine = sorted((s for s in scores if s.group == group), key=lambda s: int(s.task))
    curve: dict[str, list[float]] = {"end": [float(s.task) for s in mine]}
    for field in ("value", "low", "high"):
        curve[field] = [math.exp(getattr(s, field)) for s in mine]
    return curve


def context_picture(contexts: Sequence[dict[str, Any]]) -> str:
    """Perplexity by position for each model, with the trained length marked, as one SVG."""
    chart = Chart("Perplexity by position", "position in the context", "perplexity", width=860, y_log=True)
    chart.x_range = (0.0, max((max(c["by_position"]["end"]) for c in contexts), default=1.0))
    trained: set[int] = set()
    for i, context in enumerate(contexts):
        curve = context["by_position"]
        name = f"{context['name']} ({context['positions']})"
        color = COLORS[i % len(COLORS)]
        chart.band(curve["end"], curve["low"], curve["high"], color=color)
        chart.line(curve["end"], curve["value"], name, color=color)
        trained.add(context["trained"])
    heights = [value for mark in chart.marks for value in mark.ys] or [1.0]
    ends = [min(heights), max(heights)]
    for length in sorted(trained):
        chart.line(
            [length, length], ends, f"trained on {length}", color="#666666", dashed=True, thickness=1.2
        )
    return chart.svg()
