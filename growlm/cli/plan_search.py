"""`growlm plan` without a recipe: the growth schedule for a budget, and its recipe."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from growlm.errors import DiskError, RecipeError

if TYPE_CHECKING:
    from growlm.plan.growth.answer import Answer
    from growlm.plan.growth.pilot_reading import Pilots
    from growlm.plan.machines import Machines
    from growlm.plan.run_plan import Setting


def search_schedule(
    setting: Setting,
    machines: Machines,
    *,
    days: str | None = None,
    money: str | None = None,
    gpu_hours: str | None = None,
    tokens: str | None = None,
    min_params: str | None = None,
    max_params: str | None = None,
    tokens_stock: str | None = None,
    max_stages: int = 3,
    max_growth: float = 4.0,
    seq_len: int = 2048,
    vocab_size: int = 65_536,
    pilots: list[Path] | None = None,
    out: Path | None = None,
    force: bool = False,
    picture: Path | None = None,
    as_json: bool = False,
) -> None:
    """Search, print, and write the recipe and the picture that are asked for. Raises RecipeError."""
    from growlm.plan.growth.answer import answer
    from growlm.plan.growth.request import Budget, request
    from growlm.plan.quantities import parse_amount, parse_seconds

    def amount(text: str | None, where: str, example: str) -> float | None:
        return None if text is None else parse_amount(text, where, example)

    budget = Budget(
        seconds=None if days is None else parse_seconds(days),
        money=amount(money, "--money", "3360"),
        gpu_hours=amount(gpu_hours, "--gpu-hours", "1344"),
        tokens=amount(tokens, "--tokens", "300B"),
    )
    known = _pilots(pilots or [])
    asked = request(
        setting,
        budget,
        rho=known.rho if known else (0.0, 1.0),
        min_params=amount(min_params, "--min-params", "3B") or 0.0,
        max_params=amount(max_params, "--max-params", "13B") or math.inf,
        tokens_stock=amount(tokens_stock, "--tokens-stock", "1T") or math.inf,
        max_stages=max_stages,
        max_growth=max_growth,
        seq_len=seq_len,
        vocab_size=vocab_size,
    )
    found = answer(asked, measured=known is not None)
    written = _write_recipes(found, out, force=force) if out else []
    if picture is not None:
        write_text(picture, _picture(found, machines.currency), force=force)
    if as_json:
        from growlm.plan.growth.answer_json import answer_json

        read = {"pilots": None if known is None else asdict(known), "recipes": written}
        typer.echo(json.dumps(answer_json(found) | read, allow_nan=False, indent=2))
        return
    from growlm.cli.plan_search_text import pilot_lines, print_answer

    print_answer(found, machines.currency)
    for line in pilot_lines(known) if known else ():
        typer.echo(line)
    for path in written:
        typer.echo(f"wrote {path}; next: growlm train {path} --dry-run --ranks {setting.n_gpus}")


def _pilots(folders: list[Path]) -> Pilots | None:
    """What finished pilot runs say; None without any."""
    if not folders:
        return None
    from growlm.plan.growth.pilot_reading import read_pilots
    from growlm.train.record import RECORD_NAME, RecordReader

    for folder in folders:
        if not (folder / RECORD_NAME).is_file():
            raise RecipeError(
                "this is not the folder of a run", where=str(folder), fix=f"name one with {RECORD_NAME}"
            )
    return read_pilots([RecordReader(folder / RECORD_NAME).read() for folder in folders])


def _write_recipes(found: Answer, out: Path, *, force: bool) -> list[str]:
    """The recipe of the schedule, and those of the pilot if there is one, beside it."""
    from growlm.plan.growth.recipe import recipe_texts

    if out.suffix != ".toml":
        raise RecipeError("a recipe is a .toml file", where=f"--out {out}", fix=f"--out {out}.toml")
    texts = recipe_texts(found, out.stem)
    paths = [out, *(out.with_name(f"{name}.toml") for name in list(texts)[1:])]
    for path in paths:
        _refuse_existing(path, force=force)
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text, force=force)
    return [str(path) for path in paths]


def _picture(found: Answer, currency: str) -> str:
    """The schedule beside the best single size."""
    from growlm.plan.growth.picture import growth_picture
    from growlm.plan.growth.theory import Leg

    asked, costs = found.asked, []
    for rung, tokens in zip(found.schedule.rungs, found.schedule.tokens, strict=True):
        seconds = tokens / rung.tokens_per_second
        money = asked.money(seconds)
        costs.append(f"{seconds / 86400:.2g} days" + ("" if money is None else f", {money:,.0f} {currency}"))
    static = found.found.static
    alone = Leg(static.rungs[0].params, static.tokens[0]) if len(found.schedule.rungs) > 1 else None
    title = f"{asked.setting.n_gpus} x {asked.setting.gpu.name}, {asked.goal.seconds / 86400:.1f} days"
    return growth_picture(title, found.schedule.legs(), costs, alone)


def _refuse_existing(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise RecipeError("the file exists already", where=str(path), fix="name another path, or add --force")


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write a file. Raises RecipeError if it is there already, DiskError if it cannot be written."""
    _refuse_existing(path, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DiskError(
            f"the file cannot be written: {error.strerror}", where=str(path), fix="name another path"
        ) from error
