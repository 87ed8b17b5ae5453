"""`growlm eval iq`: the IQ suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from growlm.cli.eval_shown import going_on, say, show
from growlm.errors import RecipeError

if TYPE_CHECKING:
    from growlm.evaluate.iq.task import Setup
    from growlm.inference.requests import Model

TASKS_HELP = (
    "A group or a task of it; all if none. Repeat. rules: counting, replace_lowercase, replace_word. "
    "patterns: head_tail, full_repeating, head_slicing. interference: key_retrieval, single_fact, two_facts. "
    "superglue_iq: superglue_iq_boolq, _wic, _rte, _wsc. clue_iq: clue_iq_afqmc, _csl, _ocnli, _cluewsc."
)


def iq(
    models: Models = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=TASKS_HELP),
    ] = None,
    items: Annotated[
        int | None, typer.Option(min=1, help="Items of each task; as published if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed makes a suite that nobody has seen.")] = 0,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Solved examples; the same as --dial shots=N.")
    ] = None,
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
    from growlm.train.malloc import use_tuned_malloc

    if export is None:
        use_tuned_malloc()
    from growlm.cli.options import whole_pairs
    from growlm.evaluate.iq.suite import plan, run
    from growlm.evaluate.iq.task import Setup
    from growlm.evaluate.models import models_of
    from growlm.evaluate.opened import ask_each

    dials = whole_pairs("--dial", [*(dial or []), *([] if shots is None else [f"shots={shots}"])])
    setup = Setup(seed, language, items, dials, data_dir)
    if export is not None:
        if models:
            raise RecipeError("--export asks no model", where=models[0], fix="leave out one of the two")
        _export(export, format, task or [], setup)
        return
    named = models_of(models or [], every_stage=every_stage)
    planned = plan(task or [], setup, say)
    count = f"{sum(len(each.items) for each in planned):,} items of {len(planned)} tasks"

    def ask(model: Model, facts: Mapping[str, Any]) -> None:
        say(f"{facts['name']}: {count}")
        run(model, facts, planned, setup, out / facts["name"] / "iq", say=say)

    with going_on():
        ask_each(named, ask, context=context, precision=precision, data=data, device=device, workers=workers)
    show(out, lambda group: group.startswith("iq/"), as_json=as_json)


def _export(folder: Path, form: Literal["harness", "jsonl"], tasks: list[str], setup: Setup) -> None:
    from growlm.evaluate.iq.export import write_export
    from growlm.evaluate.iq.suite import plan

    for line in write_export(folder, form, plan(tasks, setup, say), setup):
        typer.echo(line)
