"""`growlm coordcheck`: do the outputs of layers stay of one size, whatever the size of the model?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from growlm.cli.options import whole_numbers
from growlm.errors import RecipeError

if TYPE_CHECKING:
    from growlm.search.coordcheck import Check, Sweep


def coordcheck(
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe file, or the name of a preset; none for a small Llama.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: --set optim.name=muon.")
    ] = None,
    parametrization: Annotated[
        Literal["sp", "mup", "completep"] | None, typer.Option(help="In place of the recipe's.")
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "muon"] | None, typer.Option(help="In place of the recipe's.")
    ] = None,
    widths: Annotated[
        str | None, typer.Option(metavar="64,128,...", help="By default doublings up to 1024 (muon: 512).")
    ] = None,
    depths: Annotated[
        str | None, typer.Option(metavar="2,4,...", help="Numbers of layers; 2 to 32 if not given.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(min=1e-12, help="Learning rate of the smallest model; a large one if not given."),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps that each model trains.")] = 5,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Models of each size to average; 8, with muon 4.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it, beside the same check of `sp`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train models of several widths and depths for a few steps; exit 1 if what their layers put out grows or
    shrinks with the size, so that no learning rate fits all sizes."""
    from rich.console import Console

    from growlm.search.coordcheck import coordinate_check

    if recipe is None and set_:
        raise RecipeError("--set goes with a recipe", fix="growlm coordcheck RECIPE --set model.tied=false")
    sizes = {
        "widths": whole_numbers(widths, "--widths") if widths else None,
        "depths": whole_numbers(depths, "--depths") if depths else None,
    }
    loaded = None
    if recipe is not None:
        from growlm.recipe.load import load_recipe

        loaded = load_recipe(recipe, set_ or [])
    with Console(stderr=True).status("training small models"):
        check = coordinate_check(loaded, parametrization, optimizer, **sizes, lr=lr, steps=steps, seeds=seeds)
        if svg is not None:
            from growlm.search.coordcheck_figure import figure

            control = coordinate_check(
                loaded, "sp", optimizer, **sizes, lr=check.lr, steps=steps, seeds=seeds
            )
            svg.write_text(figure(check, control), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(check.to_dict(), allow_nan=False))
    else:
        _print(check, svg)
    raise typer.Exit(0 if check.passed else 1)


def _print(check: Check, svg: Path | None) -> None:
    from growlm.search.coordcheck import LIMIT

    typer.echo(
        f"{check.parametrization} with {check.optimizer}, learning rate {check.lr:.2g} at the smallest size, "
        f"{check.seeds} seeds.\nThe power of the size that mean |x| follows; within {LIMIT} of 0 is flat:"
    )
    for sweep in check.sweeps:
        _print_sweep(sweep)
    broken = [sweep.axis for sweep in check.sweeps if sweep.judged and not sweep.passed]
    verdict = f"fails: outputs depend on {' and '.join(broken)}" if broken else "passes"
    typer.secho(f"\n{check.parametrization} {verdict}", fg="red" if broken else "green")
    if svg is not None:
        typer.echo(f"drawn: {svg}")


def _print_sweep(sweep: Sweep) -> None:
    """A line for each kind of layer: slopes of mean |x| by step, and of its change since the first."""
    from growlm.search.coordinates import KINDS

    steps = range(sweep.logs.shape[1])
    slopes, broken = sweep.slopes, sweep.broken
    typer.echo(
        f"\n{sweep.axis} {', '.join(map(str, sweep.sizes))}{'' if sweep.judged else ' (not promised)'}"
    )
    typer.echo("".join([f"{'step':<11}", *(f"{s + 1:>7}" for s in steps), "   change:"]))
    for k, kind in enumerate(KINDS):
        row = f"{kind:<11}"
        for measure, step in [*((0, s) for s in steps), *((1, s) for s in steps[1:])]:
            mark = "*" if broken[measure, step, k] else " "
            cell = f"{slopes[measure, step, k]:+.2f}{mark}"
            gap = " " * (4 if (measure, step) == (1, 1) else 1)
            row += gap + (typer.style(cell, fg="red") if mark == "*" else cell)
        typer.echo(row.rstrip())
