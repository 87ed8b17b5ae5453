"""What the verbs of `growlm eval` print of the results in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


def say(line: str) -> None:
    """A remark, which is no part of the result."""
    typer.echo(line, err=True)


@contextmanager
def going_on() -> Iterator[None]:
    """Say at Ctrl-C what becomes of the answers."""
    try:
        yield
    except KeyboardInterrupt:
        say("stopped: the answers so far are kept, and the same command goes on")
        raise


def show(out: Path, wanted: Callable[[str], bool], *, as_json: bool) -> None:
    """The tables of the groups that are `wanted` by their names; the page, of all, is written anew."""
    from growlm.report.evaluation import write_page
    from growlm.report.evaluation.gather import evaluation

    data = evaluation(out)
    page = write_page(out)
    shown = {**data, "groups": [group for group in data["groups"] if wanted(group["name"])]}
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False))
        return
    from growlm.report.evaluation.table import print_evaluation

    print_evaluation({**shown, "contexts": []})
    typer.echo(page)
