"""`growlm train`: train a recipe, or continue it; there is no resume flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from growlm.cli.options import file_bytes
from growlm.errors import RecipeError


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, or the name of a preset.")],
    run: Annotated[Path | None, typer.Option(help="Run folder; runs/<name> if not given.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: --set optim.lr=3e-4.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Continue although the recipe or the data changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Lay every stage out over its ranks, check it, and start nothing."),
    ] = False,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="--dry-run: so many ranks; as the recipe says if not given.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="80GB", help="--dry-run: memory of a rank, to choose layouts by.")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="4xh100", help="--dry-run: devices, for ranks, memory, time and cost."),
    ] = None,
) -> None:
    """Train a recipe. The same command continues a run that was stopped or killed."""
    from growlm.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or [])
    if dry_run:
        from growlm.cli.rehearsal import dry_run as rehearse

        rehearse(loaded, ranks, file_bytes(memory, "--memory") if memory else None, gpus, as_json=as_json)
        return
    if ranks or memory or gpus:
        given = "--ranks" if ranks else "--memory" if memory else "--gpus"
        raise RecipeError(f"{given} goes with --dry-run only", fix="torchrun or growlm launch start ranks")

    from growlm.train.malloc import use_tuned_malloc

    use_tuned_malloc()
    from growlm.evaluate.training import prepare_tasks
    from growlm.train.supervisor import run as train_run

    folder = run or Path("runs") / loaded.name
    outcome = train_run(loaded, folder, accept_changes=accept_changes, prepare_tasks=prepare_tasks)
    if outcome.rank != 0:
        return
    if as_json:
        typer.echo(json.dumps({"run": str(outcome.folder), "step": outcome.step}))
    else:
        typer.echo(f"run folder: {outcome.folder}; next: growlm report {outcome.folder}")
