"""`growlm train`: train a recipe, or continue it; there is no resume flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


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
) -> None:
    """Train a recipe. The same command continues a run that was stopped or killed."""
    from growlm.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or [])

    from growlm.train.malloc import use_tuned_malloc

    use_tuned_malloc()
    from growlm.train.supervisor import run as train_run

    outcome = train_run(loaded, run or Path("runs") / loaded.name, accept_changes=accept_changes)
    if outcome.rank != 0:
        return
    if as_json:
        typer.echo(json.dumps({"run": str(outcome.folder), "step": outcome.step}))
    else:
        typer.echo(f"run folder: {outcome.folder}; next: growlm report {outcome.folder}")
