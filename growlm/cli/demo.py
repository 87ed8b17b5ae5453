"""`growlm demo`: the whole job in minutes: prepare, train, grow twice, be killed, resume, sample, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's data and run.")] = Path("runs/demo"),
    data: Annotated[
        list[str] | None,
        typer.Option(help="Own text instead: name=PATH (txt, md, jsonl, gz, parquet); may be repeated."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove an earlier demo in that folder first.")] = False,
) -> None:
    """Train, grow and resume a small bilingual model on this machine, and show what happened."""
    from growlm.cli.demo_story import tell

    tell(out, data or [], fresh=fresh)
