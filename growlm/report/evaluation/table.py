"""What evaluations found, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from growlm.train.console import count

PLAIN_WIDTH = 240
"""Columns of text where no terminal says how many it has."""


def print_evaluation(data: dict[str, Any]) -> None:
    """Print what `growlm.report.evaluation.gather.evaluation` found: a table for each group but the subjects
    of exams, which the page has."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    for group in (g for g in data["groups"] if not g["name"].endswith("/subjects")):
        for part in _parts(group, console.width):
            console.print(_table(part))
        for number, note in enumerate(group["notes"], 1):
            console.print(f"  [{number}] {note}", markup=False, highlight=False)
        for note in group["published"]:
            console.print(f"  {note}", markup=False, highlight=False)
    for context in data["contexts"]:
        trained = f"trained on {count(context['trained'] or 0)} tokens, {context['positions']}"
        told = f"Perplexity of {context['name']}, {trained}; {context['windows']} windows"
        console.print(told, markup=False, highlight=False)
        console.print(_lengths(context))


def _parts(group: dict[str, Any], width: int) -> Iterator[dict[str, Any]]:
    """A group in tables that fit: so many columns at a time."""
    names = max((len(row["name"]) for row in group["rows"]), default=0)
    columns = group["columns"]
    widest = max((len(line) for column in columns for line in _head(column).split("\n")), default=1)
    count_ = max(1, (width - min(names, width // 3) - 16) // (widest + 3))
    for start in range(0, len(columns), count_):
        yield {**group, "columns": columns[start : start + count_]}


def _table(group: dict[str, Any]) -> Table:
    table = Table(title=escape(group["title"]), title_justify="left")
    table.add_column("model", overflow="fold")
    table.add_column("zettaFLOPs", justify="right", overflow="fold")
    for column in group["columns"]:
        table.add_column(escape(_head(column)), justify="right", overflow="fold")
    if any(column["chance"] is not None for column in group["columns"]):
        chances = ["" if c["chance"] is None else f"{100 * c['chance']:.1f}" for c in group["columns"]]
        table.add_row("chance", "", *chances, style="dim")
    for row in group["rows"]:
        cells = [_cell(row["cells"].get(column["key"])) for column in group["columns"]]
        table.add_row(escape(row["name"]), _cost(row), *cells, style="" if row["ours"] else "dim")
    return table


def _head(column: dict[str, Any]) -> str:
    items = "items differ" if column["items"] is None else f"{column['items']} items"
    if not column["average"]:
        items += ", shots differ" if column["shots"] is None else f", {column['shots']}-shot"
    return f"{column['task']}\n{column['metric']}\n{items}"


def _cell(cell: dict[str, Any] | None) -> str:
    """Per cent, with the 95 % interval of what was measured here."""
    if cell is None:
        return "–"
    if "low" not in cell:
        return f"{100 * cell['value']:.1f}"
    marks = "".join(f" \\[{mark}]" for mark in cell["marks"])
    return f"{100 * cell['value']:.1f}{marks}\n{100 * cell['low']:.1f}–{100 * cell['high']:.1f}"


def _cost(row: dict[str, Any]) -> str:
    if not row["zettaflops"]:
        return "–"
    return f"{'≈ ' if row.get('derived') else ''}{_compute(row['zettaflops'])}"


def _compute(zettaflops: float) -> str:
    """Much less than one in a unit of its own."""
    return f"{zettaflops:.4g}" if zettaflops >= 1e-3 else f"{zettaflops * 1e21:.2e} FLOP"


def _lengths(context: dict[str, Any]) -> Table:
    table = Table("first tokens", "perplexity", "95 % interval")
    curve = context["by_length"]
    for end, value, low, high in zip(curve["end"], curve["value"], curve["low"], curve["high"], strict=True):
        table.add_row(f"{end:.0f}", f"{value:.3f}", f"{low:.3f}–{high:.3f}")
    return table
