"""`growlm serve`: an OpenAI-compatible completions endpoint for a model."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer


def serve(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="Run, checkpoint, or Hugging Face folder.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but 127.0.0.1 lets others ask.")
    ] = "127.0.0.1",
    name: Annotated[str | None, typer.Option(help="What clients call the model; the folder's name.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens to write for one prompt; the context if not given.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; others get 429.")] = 32,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request, waiting included.")] = 300,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens the model looks back on; as trained if not given.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared data that holds the tokenizer.")] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="What the model computes in.")
    ] = "auto",
) -> None:
    """Serve /v1/completions on this machine until Ctrl-C."""
    from growlm.train.malloc import use_tuned_malloc

    use_tuned_malloc()
    from growlm.inference.serve.server import LOOPBACK, Server
    from growlm.inference.source import open_local

    model = open_local(source, context=context, precision=precision, data=data)
    with Server(
        model,
        name=name or source.resolve().name,
        host=host,
        port=port,
        max_tokens=max_tokens,
        waiting=queue,
        seconds=timeout,
    ) as server:
        if host not in LOOPBACK:
            typer.secho(
                f"Everybody who reaches {host} can use this model: there is no password.",
                fg="yellow",
                err=True,
            )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        typer.echo(f"Serving {server.name}, context {model.context}: {server.url}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("Stopped serving.")
