"""The comparison of two runs as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from growlm.train.console import count, duration


def print_comparison(comparison: dict[str, Any]) -> None:
    """Print what `growlm.report.compare.compare` found."""
    console = Console()
    runs = comparison["runs"]
    names = [escape(run["name"]) for run in runs]
    if names[0] == names[1]:
        names = [f"{names[0]} (A)", f"{names[1]} (B)"]
    losses = Table("at equal", "which is", "loss", *names, "difference", title="Loss, nats per token")
    for p in comparison["points"]:
        numbers = (f"{p['a']:.4f}", f"{p['b']:.4f}", f"{p['delta']:+.4f}")
        losses.add_row(p["axis"], _FORMATS[p["axis"]](p["at"]), escape(p["source"]), *numbers)
    totals = Table("", *names, title="Totals")
    for key, show in _FORMATS.items():
        values = [run["totals"][key] for run in runs]
        totals.add_row(key, *("–" if value is None else show(value) for value in values))
    last = [run["stages"][-1] if run["stages"] else {"parameters": 0, "shape": {}} for run in runs]
    totals.add_row("parameters", *(count(stage["parameters"] or 0) for stage in last))
    totals.add_row("shape", *(_shape(stage["shape"]) for stage in last))
    tasks = Table("task", "chance", *names, title="Tasks, per cent, at the last measurement")
    for task in comparison["tasks"]:
        chance = "–" if task["chance"] is None else f"{100 * task['chance']:.1f}"
        tasks.add_row(escape(task["task"]), chance, *(_share(*task[run]) for run in "ab"))
    parts = (losses, tasks, totals) if comparison["tasks"] else (losses, totals)
    for part in (*parts, *(f"Note: {escape(note)}" for note in comparison["notes"])):
        console.print(part)


_FORMATS: dict[str, Callable[[float], str]] = {
    "tokens": count,
    "flops": lambda x: f"{x:.4g}",
    "seconds": duration,
    "cost": lambda x: f"{x:.4g}",
    "loss": lambda x: f"{x:.4f}",
}


def _share(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _shape(shape: dict[str, int]) -> str:
    parts = (("n_layers", "layers"), ("d_model", "d_model"), ("n_heads", "heads"), ("d_ff", "ffn"))
    return ", ".join(f"{name} {shape.get(axis, '–')}" for axis, name in parts)
