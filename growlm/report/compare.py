"""Two runs against each other: their losses at equal tokens, equal FLOPs and equal time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from growlm.report.render import SHARED, page
from growlm.report.summary import summary

AXES = ("tokens", "flops", "seconds")
TRAIN = "train"


def compare(a: Path, b: Path) -> dict[str, Any]:
    """Both summaries and, per axis and source, both losses in nats per token where both runs have been.

    A point is {"axis", "at", "source", "a", "b", "delta" = b - a}; `at` is the farthest place that both
    runs have measured. Sources are those both validate on; without any, `train` is the smoothed training
    loss. `tasks` are the last scores of the tasks that both have. `notes` says what makes the losses hard to
    compare. Raises `RecipeError` for no such run.
    """
    runs = [summary(a), summary(b)]
    curves = [_curves(run) for run in runs]
    shared = [source for source in curves[0] if source in curves[1]]
    measured = [source for source in shared if source != TRAIN] or shared
    points = [p for axis in AXES for source in measured if (p := _point(runs, curves, axis, source))]
    return {"runs": runs, "points": points, "tasks": _tasks(runs), "notes": _notes(runs, curves, measured)}


def compare_page(comparison: dict[str, Any]) -> str:
    """The comparison as one self-contained HTML page with both runs' curves."""
    names = " and ".join(run["name"] for run in comparison["runs"])
    return page(comparison, title=f"{names} compared", scripts=(*SHARED, "compare.js"))


def _tasks(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each task that both runs have measured, the last score of each with its interval, and chance."""
    a, b = (run["tasks"] for run in runs)
    last = lambda task: [task[key][1][-1] for key in ("value", "low", "high")]  # noqa: E731
    return [
        {"task": name, "chance": a[name]["chance"], "a": last(a[name]), "b": last(b[name])}
        for name in a
        if name in b and all(task["value"][1] for task in (a[name], b[name]))
    ]


def _curves(run: dict[str, Any]) -> dict[str, Any]:
    """Loss curves (steps, values) by source; those without a point left out."""
    curves = {**run["valid"], TRAIN: run["series"]["loss"]["smooth"]}
    return {source: curve for source, curve in curves.items() if curve[0]}


def _point(
    runs: list[dict[str, Any]], curves: list[dict[str, Any]], axis: str, source: str
) -> dict[str, Any] | None:
    """Both losses at the last x that both runs have measured; None when their ranges do not meet."""
    xs = [
        np.interp(c[source][0], run["axes"]["step"], run["axes"][axis])
        for run, c in zip(runs, curves, strict=True)
    ]
    at = min(x[-1] for x in xs)
    if at < max(x[0] for x in xs):
        return None
    a, b = (float(np.interp(at, x, c[source][1])) for x, c in zip(xs, curves, strict=True))
    return {"axis": axis, "at": float(at), "source": source, "a": a, "b": b, "delta": b - a}


def _notes(runs: list[dict[str, Any]], curves: list[dict[str, Any]], measured: list[str]) -> list[str]:
    notes = []
    if measured in ([TRAIN], []):
        notes.append("The runs share no validation source; training losses of different data compare badly.")
    vocabularies = [run["stages"][-1]["shape"].get("vocab_size") for run in runs if run["stages"]]
    if len(set(vocabularies)) > 1:
        notes.append("The vocabularies differ, so a nat per token is not the same unit in both runs.")
    machines = [(run["machine"].get("device"), run["machine"].get("threads")) for run in runs]
    if len(set(machines)) > 1:
        notes.append("The machines differ, so equal time is not equal work.")
    for run, found in zip(runs, curves, strict=True):
        if not found:
            notes.append(f"{run['name']} has no losses yet.")
    return notes
