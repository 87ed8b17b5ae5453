"""`growlm data signals`: labelled data into propositions that are true or false."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from growlm.data.signals.make import Summary

_SHOWN = 3


def signals(
    out: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="File to write.")],
    task: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="Labelled rows of a task (rte, ocnli, mmlu, ...) or family (entailment, ...). Repeat.",
        ),
    ],
    tasks: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="TOML file with tasks of your own. Repeat.")
    ] = None,
    language: Annotated[str, typer.Option(help="Wording of a family named as a task: en or zh.")] = "en",
    license: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="Licence of a task whose rows say none. Repeat."),
    ] = None,
    pairs: Annotated[
        int, typer.Option(min=1, help="True statements of each item, and false ones, if worded so often.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of all draws and of the order.")] = 1,
    max_bad_rows: Annotated[int, typer.Option(min=0, help="Malformed rows that are set aside.")] = 100,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn labelled data into propositions with their truth, for the objective `teacher`."""
    from growlm.data.signals.make import make_signals
    from growlm.errors import RecipeError

    if out.suffix != ".jsonl":
        raise RecipeError(f"{out.name!r} is no .jsonl file", where="OUT", fix="growlm data signals OUT.jsonl")
    if out.exists() and not force:
        raise RecipeError("The output is there already", where=str(out), fix="name a new file, or --force")
    summary = make_signals(
        out,
        _named(task, "--task", "rte=PATH"),
        task_files=tasks or [],
        language=language,
        licenses={name: texts[-1] for name, texts in _named(license or [], "--license", "rte=CC0").items()},
        pairs=pairs,
        seed=seed,
        max_bad_rows=max_bad_rows,
    )
    typer.echo(
        json.dumps(dataclasses.asdict(summary)) if as_json else f"{_table(summary, out)}\nwritten to {out}"
    )


def _named(flags: list[str], option: str, example: str) -> dict[str, list[str]]:
    """The values of `--option NAME=VALUE` by name. Raises RecipeError."""
    from growlm.errors import RecipeError

    values: dict[str, list[str]] = {}
    for flag in flags:
        name, _, value = flag.partition("=")
        if not (name and value):
            raise RecipeError(f"{flag!r} has no name or no value", where=option, fix=f"{option} {example}")
        values.setdefault(name, []).append(value)
    return values


def _table(summary: Summary, out: Path) -> str:
    columns = ("task", "lang", "items", "propositions", "true", "false", "dropped", "alone")
    rows = ["{:<14} {:<5} {:>9} {:>13} {:>9} {:>9} {:>9} {:>7}".format(*columns)]
    notes = []
    for task in summary.tasks:
        numbers = f"{task.items:>9,} {task.propositions:>13,} {task.true:>9,} {task.false:>9,}"
        dropped = sum(task.dropped.values())
        rows.append(f"{task.task:<14} {task.language:<5} {numbers} {dropped:>9,} {task.alone:>7.3f}")
        reasons = [f"{count:,} {reason}" for reason, count in task.dropped.items() if count]
        notes += [f"{task.task}: dropped {', '.join(reasons)}"] if reasons else []
    notes.append("alone: how often words tell the truth of statements without their texts; 0.5 is chance")
    for pair in summary.contradictions[:_SHOWN]:
        notes.append(f"contradiction, both left out: {pair.first} and {pair.second}")
    if len(summary.contradictions) > _SHOWN:
        notes.append(f"... and {len(summary.contradictions) - _SHOWN:,} more")
    if summary.bad_rows:
        notes.append(f"{summary.bad_rows:,} malformed rows were set aside in {out.name}.quarantine")
    return "\n".join([*rows, *notes])
