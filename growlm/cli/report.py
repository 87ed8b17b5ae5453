"""`growlm report`: one self-contained HTML file about a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default report.html in the run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the data of the report instead.")] = False,
) -> None:
    """Write the report of a run: losses, growths, cost, samples, events. Works offline, in any browser."""
    if as_json:
        from growlm.report.summary import summary

        typer.echo(json.dumps(summary(run), ensure_ascii=False, allow_nan=False))
        return
    from growlm.report.render import write_report

    typer.echo(write_report(run, out))
