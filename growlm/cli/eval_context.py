"""`growlm eval context`: perplexity against context length."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from growlm.cli.eval_options import OUT, Device, Out


def context(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders, or checkpoints; NAME=RUN names one."),
    ],
    data: Annotated[Path, typer.Option(help="Prepared data whose held-out text is read.")],
    source: Annotated[
        str | None, typer.Option(help="Source of running text; the first if not given.")
    ] = None,
    longest: Annotated[int, typer.Option(min=1, help="Longest context, in trained lengths.")] = 4,
    windows: Annotated[int, typer.Option(min=2, help="Texts of that length, at most.")] = 64,
    out: Out = OUT,
    device: Device = "auto",
) -> None:
    """Perplexity of held-out text by position, far beyond the length that a run was trained on."""
    from growlm.evaluate.extrapolate import Asked, measure_context
    from growlm.evaluate.models import models_of
    from growlm.evaluate.result import save_result
    from growlm.report.evaluation import write_page
    from growlm.report.evaluation.gather import evaluation
    from growlm.report.evaluation.table import print_evaluation

    asked = Asked(data, source, longest, windows)
    for run in models_of(runs):
        name = run["name"]
        result = measure_context(Path(run["source"]), asked, name=name, device=device, quiet=False)
        save_result(out / name / "context", result)
    page = write_page(out)
    print_evaluation(evaluation(out))
    typer.echo(page)
