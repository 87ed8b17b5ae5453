"""`growlm watch`: the report of a run while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def watch(
    run: Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
) -> None:
    """Serve a live, read-only page of a run on this machine until Ctrl-C."""
    from growlm.report.server import LivePage

    with LivePage(run, port) as server:
        taken = server.server_address[1]
        typer.echo(f"Watching {run}: {server.url}")
        typer.echo(
            f"From another machine: ssh -N -L {taken}:127.0.0.1:{taken} USER@HOST, then the same address."
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("Stopped watching; the run goes on.")
