"""`growlm import`: a Hugging Face folder as a GrowLM checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from growlm.cli.options import check_source


def import_(
    folder: Annotated[
        Path, typer.Argument(help="Hugging Face folder: config.json, safetensors, tokenizer.json.")
    ],
    out: Annotated[Path, typer.Argument(help="New folder for the checkpoint and a recipe to go on with.")],
) -> None:
    """Import Llama, Mistral, SmolLM, Qwen2, Qwen3, GPT-2, GPT-NeoX, OPT, Tele-FLM and FLM-101B models."""
    from growlm.convert.folder import CONFIG, read_json
    from growlm.train.exchange import RECIPE, import_folder

    check_source(folder)
    path = import_folder(folder, out)
    if "auto_map" in read_json(folder / CONFIG):
        typer.echo("note: the code that auto_map names was not run; GrowLM knows this model_type")
    typer.echo(f"checkpoint: {path}")
    tokenizer = path / "tokenizer.json"
    if tokenizer.is_file():
        typer.echo(f"to train it on, prepare data with --tokenizer {tokenizer}")
    typer.echo(f"a recipe that goes on from it: {out / RECIPE}")
