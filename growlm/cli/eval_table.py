"""`growlm eval table`: what is in a folder of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from growlm.cli.eval_options import OUT, Json


def table(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of results.")] = OUT,
    as_json: Json = False,
) -> None:
    """Print the results in a folder as tables, and write its evaluation.html anew."""
    from growlm.report.evaluation import write_page
    from growlm.report.evaluation.gather import evaluation

    data = evaluation(out)
    page = write_page(out)
    if as_json:
        typer.echo(json.dumps(data, ensure_ascii=False))
        return
    from growlm.report.evaluation.table import print_evaluation

    print_evaluation(data)
    typer.echo(page)
