"""`growlm export`: a run or checkpoint as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from growlm.cli.options import check_source, file_bytes


def export(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or one checkpoint.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    dialect: Annotated[
        str | None,
        typer.Option("--as", help="Kind of model to write: llama, mistral, flm, growlm, ...; by its family."),
    ] = None,
    dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="How weights are stored.")] = "fp32",
    shard_size: Annotated[str, typer.Option(help="Largest size of a file.")] = "5GB",
    data: Annotated[Path | None, typer.Option(help="Prepared data that holds the tokenizer.")] = None,
) -> None:
    """Export a model for transformers: safetensors, config.json, tokenizer and a model card."""
    from growlm.data.progress import Progress
    from growlm.train.exchange import export_checkpoint

    check_source(source)
    written = export_checkpoint(
        source,
        out,
        dialect=dialect,
        dtype=dtype,
        shard_bytes=file_bytes(shard_size),
        data=data,
        progress=Progress(),
    )
    typer.echo(f"{out}: a {written.model_type} model")
    if written.name == "growlm":
        typer.echo("transformers loads it after `import growlm.hf`")
