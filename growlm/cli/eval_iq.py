"""`growlm eval iq`: the IQ suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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

if TYPE_CHECKING:
    from growlm.evaluate.iq.task import Setup


def iq(
    models: Models = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A task or a group of tasks; all if none. Repeat."),
    ] = None,
    items: Annotated[int | None, typer.Option(help="Items of each task; as published if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed makes a suite that nobody has seen.")] = 0,
    shots: Annotated[int | None, typer.Option(help="Solved examples; the same as --dial shots=N.")] = None,
    dial: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="How hard: length=12, keys=8, ... (docs/evaluation.md). Repeat."
        ),
    ] = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Of the generated tasks: en or zh.")] = "en",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with SuperGLUE and CLUE, for symbolic mapping.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the items there instead of asking a model.")
    ] = None,
    format: Annotated[
        Literal["harness", "jsonl"], typer.Option(help="Of --export: lm-evaluation-harness tasks, or lines.")
    ] = "harness",
    out: Out = OUT,
    workers: Workers = 1,
    precision: Precision = "auto",
    context: Context = None,
    device: Device = "auto",
    data: Data = None,
    every_stage: EveryStage = False,
    as_json: Json = False,
) -> None:
    """Ask what cannot be memorised: symbols for labels, rules, patterns, facts among distractions."""
    from growlm.cli.options import whole_pairs
    from growlm.evaluate.iq.suite import plan, run
    from growlm.evaluate.iq.task import Setup

    dials = whole_pairs("--dial", dial) | ({} if shots is None else {"shots": shots})
    setup = Setup(seed, language, items, dials, data_dir)
    if export is not None:
        _export(export, format, task or [], setup)
        return
    from growlm.evaluate.models import models_of
    from growlm.inference.source import open_model

    planned = plan(task or [], setup, _say)
    for facts in models_of(models or [], every_stage=every_stage):
        _say(f"{facts['name']}: {sum(len(each.items) for each in planned):,} items of {len(planned)} tasks")
        model = open_model(
            facts["source"],
            context=context,
            precision=precision,
            data=data,
            device=device,
            workers=workers,
        )
        run(model, facts, planned, setup, out / facts["name"] / "iq")
    _show(out, as_json)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _export(folder: Path, form: Literal["harness", "jsonl"], tasks: list[str], setup: Setup) -> None:
    from growlm.evaluate.iq.export import write_export
    from growlm.evaluate.iq.suite import plan

    for line in write_export(folder, form, plan(tasks, setup, _say), setup):
        typer.echo(line)


def _show(out: Path, as_json: bool) -> None:
    """The tables of all IQ results in the folder, and its page."""
    from growlm.report.evaluation import write_page
    from growlm.report.evaluation.gather import evaluation

    data = evaluation(out)
    page = write_page(out)
    shown = {**data, "groups": [group for group in data["groups"] if group["name"].startswith("iq/")]}
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False))
        return
    from growlm.report.evaluation.table import print_evaluation

    print_evaluation({**shown, "contexts": []})
    typer.echo(page)
