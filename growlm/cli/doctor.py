"""`growlm doctor`: is this machine fit to train, and what would make it fitter."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    path: Annotated[Path, typer.Argument(help="Folder that runs will be written to.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the machine: torch, cores, memory, disk, locks, matmul speed. Exit 1 if something fails."""
    from growlm.cli.probes import examine

    rows = examine(path)
    healthy = all(row.state != "fail" for row in rows)
    if as_json:
        typer.echo(json.dumps({"ok": healthy, "checks": [asdict(row) for row in rows]}, indent=2))
    else:
        width = max(len(row.name) for row in rows)
        for row in rows:
            state = typer.style(f"{row.state:<4}", fg=_COLORS[row.state])
            typer.echo(f"{state}  {row.name:<{width}}  {row.value}")
            if row.advice:
                typer.echo(f"      {'':<{width}}  -> {row.advice}")
    raise typer.Exit(0 if healthy else 1)
