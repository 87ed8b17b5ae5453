"""Options that the verbs of `growlm eval` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL...",
        help="A run, a checkpoint, a Hugging Face folder, or http://... of an endpoint; NAME=MODEL names it.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the results; evaluation.html in it shows them all.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with its own copy of the model.")]
Precision = Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="What the model computes in.")]
Context = Annotated[
    int | None, typer.Option(min=1, help="Tokens the model looks back on; as trained if not given.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Data = Annotated[Path | None, typer.Option(help="Prepared data that holds a checkpoint's tokenizer.")]
EveryStage = Annotated[
    bool, typer.Option("--every-stage", help="Of a run: the checkpoint at the end of every stage.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

OUT = Path("eval")
