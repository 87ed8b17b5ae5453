"""`growlm search`: find hyper-parameters on a small proxy, and write them into the target's recipe."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from growlm.errors import RecipeError


def search(
    recipe: Annotated[Path, typer.Argument(help="Recipe of the target, or the name of a preset.")],
    search_: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="FIELD=VALUES",
            help='Values to try: "optim.lr=2^-10..2^-6" or "model.init_std=0.01,0.02". Repeat for more '
            "fields; learning rate, init_std and output_mult around the recipe's own if not given.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field of the recipe: --set optim.lr=3e-4.")
    ] = None,
    sampler: Annotated[
        Literal["grid", "qmc", "tpe"], typer.Option(help="How the space is sampled.")
    ] = "grid",
    trials: Annotated[int | None, typer.Option(min=1, help="qmc, tpe: trials; 32 if not given.")] = None,
    pruner: Annotated[
        Literal["median", "halving", "none"], typer.Option(help="Which trials are stopped early.")
    ] = "median",
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time on this machine.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the best point, to measure noise.")] = 3,
    stage: Annotated[str | None, typer.Option(help="Target stage; the last if not given.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="d_model of the proxy.")] = None,
    proxy_layers: Annotated[int | None, typer.Option(min=1, help="Layers of the proxy.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of a trial.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the search; the recipe's if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Its folder; searches/<name> if not given.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Database that several machines share: postgresql://...; SQLite if not given."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Accept an optimum on the edge.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, start nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find hyper-parameters on a small proxy. The same command continues, here and on other machines."""
    if find_spec("optuna") is None:
        raise RecipeError("the search needs optuna, which is not here", fix='pip install "growlm[search]"')
    if not dry_run:
        from growlm.train.malloc import use_tuned_malloc

        use_tuned_malloc()
    from growlm.recipe.load import load_recipe
    from growlm.search.plan import make_plan
    from growlm.search.proxy import make_proxy
    from growlm.search.result import plan_text
    from growlm.search.space import parse_space

    target = load_recipe(recipe, set_ or [])
    proxy = make_proxy(target, stage=stage, width=width, layers=proxy_layers, tokens=tokens)
    space = parse_space(proxy.recipe, search_ or [])
    plan = make_plan(space, sampler, trials, proxy.recipe.seed)
    if dry_run or not as_json:
        typer.echo(plan_text(proxy, plan), err=not dry_run)
    if dry_run:
        return
    from growlm.search.result import outcome_json, outcome_text
    from growlm.search.run import Settings
    from growlm.search.run import search as run_search

    name = name or target.name
    settings = Settings(name, out or Path("searches") / name, storage, workers, seeds, pruner, force)
    outcome = run_search(target, proxy, plan, settings)
    typer.echo(
        json.dumps(outcome_json(outcome))
        if as_json
        else outcome_text(outcome, settings.folder / "recipe.toml")
    )
