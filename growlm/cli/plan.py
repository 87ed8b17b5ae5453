"""`growlm plan`: what a recipe needs and costs, or the growth schedule for a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from growlm.errors import RecipeError

if TYPE_CHECKING:
    from growlm.plan.machines import Machines
    from growlm.plan.run_plan import RunPlan, Setting
    from growlm.recipe.schema import Recipe


SEARCH = "Without a recipe: search a growth schedule for a budget"


ONLY = {
    True: ("set_", "measured", "searched", "layouts"),
    False: (
        *("days", "money", "gpu_hours", "tokens", "min_params", "max_params", "tokens_stock"),
        *("max_stages", "max_growth", "seq_len", "vocab_size", "pilot", "out"),
    ),
}
"""Options that make sense with a recipe only, and without one only."""


def plan(
    context: typer.Context,
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe file, or the name of a preset; none to search a schedule.")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="4xh100", help="Devices; as many as the recipe says without 4x.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: --set stages.0.d_model=512.")
    ] = None,
    mfu: Annotated[
        str | None, typer.Option(metavar="0.45", help="MFU of all stages, or 0.4,0.45: one for each.")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Take the MFU from a run on the same kind of device.")
    ] = None,
    searched: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Add what this search of `growlm search` took.")
    ] = None,
    goodput: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Useful share of the time; 0.93 if not given.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of one GPU for an hour.")] = None,
    grid: Annotated[str | None, typer.Option(help="Whose electricity: world, USA, CHN, ...")] = None,
    machines: Annotated[
        Path | None, typer.Option(metavar="FILE", help="GPUs, prices and grids of your own (TOML).")
    ] = None,
    layouts: Annotated[
        bool, typer.Option("--layouts", help="Also list every layout that fits, and why others do not.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    days: Annotated[
        str | None,
        typer.Option(metavar="14", help="Time to plan for: 14, 2 weeks, 36h.", rich_help_panel=SEARCH),
    ] = None,
    money: Annotated[
        str | None, typer.Option(metavar="3360", help="Money to plan for.", rich_help_panel=SEARCH)
    ] = None,
    gpu_hours: Annotated[
        str | None, typer.Option(metavar="1344", help="GPU-hours to plan for.", rich_help_panel=SEARCH)
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="300B",
            help="Plan for what one model of --min-params costs on these tokens.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    min_params: Annotated[
        str | None, typer.Option(metavar="3B", help="Smallest size wanted.", rich_help_panel=SEARCH)
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(metavar="13B", help="Largest size wanted.", rich_help_panel=SEARCH)
    ] = None,
    tokens_stock: Annotated[
        str | None, typer.Option(metavar="1T", help="Tokens that there are.", rich_help_panel=SEARCH)
    ] = None,
    max_stages: Annotated[int, typer.Option(min=1, max=3, help="Most stages.", rich_help_panel=SEARCH)] = 3,
    max_growth: Annotated[
        float, typer.Option(min=1.2, max=64, help="Largest factor of one growth.", rich_help_panel=SEARCH)
    ] = 4.0,
    seq_len: Annotated[int, typer.Option(min=2, help="Context length.", rich_help_panel=SEARCH)] = 2048,
    vocab_size: Annotated[
        int, typer.Option(min=2, help="Rows of the embedding.", rich_help_panel=SEARCH)
    ] = 65_536,
    pilot: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="A finished run that grew, and with a second --pilot one of its last size alone.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Write the schedule as a recipe.", rich_help_panel=SEARCH),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite what exists.", rich_help_panel=SEARCH)
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw size over tokens: the area is the cost.")
    ] = None,
) -> None:
    """Say what a recipe needs and costs before it starts: layout, memory, time, money, energy."""
    from growlm.plan.machines import load_machines

    _check_options(context, with_recipe=recipe is not None)
    table = load_machines(machines)
    if recipe is None:
        from growlm.cli.plan_search import search_schedule

        search_schedule(
            _devices(table, gpus, mfu, goodput, price, grid),
            table,
            days=days,
            money=money,
            gpu_hours=gpu_hours,
            tokens=tokens,
            min_params=min_params,
            max_params=max_params,
            tokens_stock=tokens_stock,
            max_stages=max_stages,
            max_growth=max_growth,
            seq_len=seq_len,
            vocab_size=vocab_size,
            pilots=pilot or [],
            out=out,
            force=force,
            picture=picture,
            as_json=as_json,
        )
        return
    from growlm.cli.plan_text import print_plan
    from growlm.plan.growth.economics import economics
    from growlm.plan.ranking import rank_layouts
    from growlm.plan.run_plan import plan_recipe
    from growlm.plan.searched import searched_flops
    from growlm.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or [])
    setting = _setting(loaded, table, gpus, mfu, measured, goodput, price, grid)
    planned = plan_recipe(loaded, table, setting)
    if searched is not None:
        planned = replace(planned, search_flops=searched_flops(searched))
    ranked = []
    if layouts:
        stages = range(len(loaded.stages))
        ranked = [rank_layouts(loaded, stage, setting.n_gpus, setting.gpu) for stage in stages]
    if picture is not None:
        _draw(planned, picture, table.currency, force=force)
    print_plan(planned, table, ranked, economics(planned), as_json=as_json)


def _check_options(context: typer.Context, *, with_recipe: bool) -> None:
    """Raise RecipeError for an option that would do nothing."""
    for name in ONLY[not with_recipe]:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.strip("_").replace("_", "-")
            raise RecipeError(
                f"{option} is for {'a search, which is without a recipe' if with_recipe else 'a recipe'}",
                where=option,
                fix="leave out the one or the other" if with_recipe else "leave it out, or name a recipe",
            )


def _draw(planned: RunPlan, path: Path, currency: str, *, force: bool) -> None:
    """Size over tokens of a recipe's stages."""
    from growlm.cli.plan_search import write_text
    from growlm.plan.growth.picture import growth_picture
    from growlm.plan.growth.theory import Leg

    legs = [Leg(stage.parameters, stage.tokens) for stage in planned.stages]
    costs = [
        f"{s.cost.days:.2g} days" + ("" if s.cost.money is None else f", {s.cost.money:,.0f} {currency}")
        for s in planned.stages
    ]
    write_text(path, growth_picture(planned.name, legs, costs), force=force)


def _devices(
    machines: Machines,
    gpus: str | None,
    mfu: str | None,
    goodput: float | None,
    price: float | None,
    grid: str | None,
) -> Setting:
    """The devices and rates of a search. Raises RecipeError."""
    from growlm.plan.cost import GOODPUT
    from growlm.plan.machines import parse_gpus
    from growlm.plan.run_plan import Setting

    if gpus is None:
        raise RecipeError(
            "there is no recipe to plan, and no GPUs to plan a budget for",
            where="--gpus",
            fix="growlm plan RECIPE --gpus 4xh100, or for a budget "
            "growlm plan --gpus 4xh100 --days 14 --price 2.5 --min-params 3B --out my.toml",
        )
    count, gpu = parse_gpus(gpus, machines)
    rates = _numbers(mfu, "--mfu") if mfu else ()
    if len(rates) > 1:
        raise RecipeError("a search takes one MFU for all sizes", where="--mfu", fix="--mfu 0.45")
    return Setting(
        gpu=gpu,
        n_gpus=count or 1,
        mfu=rates,
        goodput=goodput or GOODPUT,
        price_per_hour=price,
        grid=grid,
    )


def _setting(
    recipe: Recipe,
    machines: Machines,
    gpus: str | None,
    mfu: str | None,
    measured: Path | None,
    goodput: float | None,
    price: float | None,
    grid: str | None,
) -> Setting:
    """The devices and rates of a plan; what is left out is the recipe's, or usual. Raises RecipeError."""
    from growlm.plan.measured import measured_mfu
    from growlm.plan.run_plan import setting_of

    if mfu and measured:
        raise RecipeError("--mfu and --measured say the same thing twice", fix="give one of them")
    rates = _numbers(mfu, "--mfu") if mfu else ()
    setting = setting_of(recipe, machines, gpus, mfu=rates, goodput=goodput, price_per_hour=price, grid=grid)
    if measured is None:
        return setting
    from growlm.train.record import RECORD_NAME, RecordReader

    records = RecordReader(measured / RECORD_NAME).read()
    names = [stage.name for stage in recipe.stages]
    return replace(setting, mfu=measured_mfu(records, setting.gpu, names, machines))


def _numbers(text: str, option: str) -> tuple[float, ...]:
    """Shares between 0 and 1, separated by commas. Raises RecipeError."""
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = (0.0,)
    if not all(0 < share <= 1 for share in shares):
        raise RecipeError(f"{text!r} is not a share", where=option, why="it is of 1", fix=f"{option} 0.45")
    return shares
