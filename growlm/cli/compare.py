"""`growlm compare`: two runs at equal tokens, equal FLOPs and equal time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder of the first run.")],
    b: Annotated[Path, typer.Argument(help="Run folder of the second run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page with both runs' curves.")] = None,
) -> None:
    """Compare two runs: losses where both have been, what each used, the shapes they reached."""
    from growlm.report.compare import compare as compare_runs
    from growlm.report.compare import compare_page
    from growlm.report.render import write_page

    comparison = compare_runs(a, b)
    if html is not None:
        write_page(compare_page(comparison), html)
    if as_json:
        kept = {**comparison, "runs": [_brief(run) for run in comparison["runs"]]}
        typer.echo(json.dumps(kept, ensure_ascii=False, allow_nan=False))
    else:
        _print_tables(comparison)


def _brief(run: dict[str, Any]) -> dict[str, Any]:
    """A run without its curves."""
    return {key: run[key] for key in ("name", "state", "currency", "totals", "stages", "growths")}


def _print_tables(comparison: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    runs = comparison["runs"]
    names = [escape(run["name"]) for run in runs]
    if names[0] == names[1]:
        names = [f"{names[0]} (A)", f"{names[1]} (B)"]
    losses = Table("at equal", "which is", "loss", *names, "difference", title="Loss, nats per token")
    for p in comparison["points"]:
        numbers = (f"{p['a']:.4f}", f"{p['b']:.4f}", f"{p['delta']:+.4f}")
        losses.add_row(p["axis"], f"{p['at']:.4g}", escape(p["source"]), *numbers)
    totals = Table("", *names, title="Totals")
    for key in ("tokens", "flops", "seconds", "cost", "loss"):
        totals.add_row(key, *(_figure(run["totals"][key]) for run in runs))
    totals.add_row(
        "parameters", *(_figure(run["stages"][-1]["parameters"]) if run["stages"] else "–" for run in runs)
    )
    totals.add_row("shape", *(_shape(run["stages"][-1]["shape"]) if run["stages"] else "–" for run in runs))
    console.print(losses, totals, *(f"Note: {escape(note)}" for note in comparison["notes"]), sep="\n")


def _figure(x: float | None) -> str:
    return "–" if x is None else f"{x:,.0f}" if 1000 <= x < 1e10 else f"{x:.4g}"


def _shape(shape: dict[str, int]) -> str:
    parts = (("n_layers", "layers"), ("d_model", "d_model"), ("n_heads", "heads"), ("d_ff", "ffn"))
    return ", ".join(f"{name} {shape.get(axis, '–')}" for axis, name in parts)
