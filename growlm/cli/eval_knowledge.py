"""`growlm eval knowledge`: benchmarks of lm-evaluation-harness."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from growlm.cli.eval_options import (
    OUT,
    Context,
    Data,
    Device,
    EveryStage,
    Json,
    Models,
    Out,
    Precision,
    Workers,
)


def knowledge(
    models: Models = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A benchmark, or open-llm, superglue, clue; all if none. Repeat."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the benchmarks' files (docs/evaluation.md).")
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Fetch them from the Hugging Face hub instead.")] = False,
    limit: Annotated[
        int | None, typer.Option(help="Only the first documents of each task; a subject is a task.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Solved examples; the leaderboards' numbers if not given.")
    ] = None,
    out: Out = OUT,
    workers: Workers = 1,
    precision: Precision = "auto",
    context: Context = None,
    device: Device = "auto",
    data: Data = None,
    every_stage: EveryStage = False,
    as_json: Json = False,
) -> None:
    """Ask what a model knows: ARC, HellaSwag, MMLU, TruthfulQA, SuperGLUE, CLUE, CMMLU, C-Eval."""
    # read when the hub's libraries are imported, which is below
    os.environ["HF_HUB_OFFLINE"] = "0" if hub else "1"
    from growlm.evaluate.knowledge.run import plan, run
    from growlm.evaluate.models import models_of
    from growlm.inference.source import open_model

    named = models_of(models or [], every_stage=every_stage)
    planned = plan(task or [], data_dir, hub=hub, shots=shots, limit=limit, say=_say)
    for facts in named:
        _say(f"{facts['name']}: {', '.join(each.benchmark.name for each in planned)}")
        model = open_model(
            facts["source"],
            context=context,
            precision=precision,
            data=data,
            device=device,
            workers=workers,
        )
        run(model, facts, planned, out / facts["name"] / "knowledge", say=_say)
    _show(out, as_json)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _show(out: Path, as_json: bool) -> None:
    """The tables of all knowledge results in the folder, and its page."""
    from growlm.report.evaluation import write_page
    from growlm.report.evaluation.gather import evaluation

    data = evaluation(out)
    page = write_page(out)
    groups = [group for group in data["groups"] if not group["name"].startswith("iq/")]
    if as_json:
        typer.echo(json.dumps({**data, "groups": groups}, ensure_ascii=False))
        return
    from growlm.report.evaluation.table import print_evaluation

    shown = [group for group in groups if not group["name"].endswith("/subjects")]
    print_evaluation({**data, "groups": shown, "contexts": []})
    typer.echo(page)
