"""`growlm eval knowledge`: benchmarks of lm-evaluation-harness."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from growlm.inference.requests import Model


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
    from growlm.train.malloc import use_tuned_malloc

    use_tuned_malloc()
    from growlm.evaluate.knowledge.run import plan, run
    from growlm.evaluate.models import models_of
    from growlm.evaluate.opened import ask_each

    named = models_of(models or [], every_stage=every_stage)
    planned = plan(task or [], data_dir, hub=hub, shots=shots, limit=limit, say=say)

    def ask(model: Model, facts: Mapping[str, Any]) -> None:
        say(f"{facts['name']}: {', '.join(each.benchmark.name for each in planned)}")
        run(model, facts, planned, out / facts["name"] / "knowledge", say=say)

    with going_on():
        ask_each(named, ask, context=context, precision=precision, data=data, device=device, workers=workers)
    show(out, lambda group: not group.startswith("iq/"), as_json=as_json)
