"""`growlm predict`: the loss of a model before it is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def predict(
    sources: Annotated[list[Path], typer.Argument(help="Tables (CSV, JSON lines) or finished run folders.")],
    target: Annotated[
        list[str],
        typer.Option(help="What to predict: n=1e9,d=2e10, c=1e21, a recipe, a run, or a table."),
    ],
    columns: Annotated[
        str, typer.Option(help="Which column is what, e.g. n=HEADER,d=HEADER,loss=HEADER.")
    ] = "",
    law: Annotated[str | None, typer.Option(help="Use this law alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also draw the prediction: an SVG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Predict a loss with its interval, from the losses of finished runs."""
    from growlm.report.predict import predictions

    made = predictions(sources, target, columns, law)
    if out is not None:
        out.write_text(made.picture(), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(made.as_json(), ensure_ascii=False, allow_nan=False))
        return
    from growlm.report.prediction_tables import print_predictions

    print_predictions(made.found)
