"""The `growlm` command: its verbs, and how every failure ends in one message and one exit code."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Annotated

import typer

from growlm import __version__
from growlm.cli import ckpt, data, launch
from growlm.cli import eval as evaluation
from growlm.cli.compare import compare
from growlm.cli.coordcheck import coordcheck
from growlm.cli.data_signals import signals
from growlm.cli.data_tokenizer import tokenizer
from growlm.cli.demo import demo
from growlm.cli.doctor import doctor
from growlm.cli.export import export
from growlm.cli.grow import grow
from growlm.cli.import_ import import_
from growlm.cli.init import init
from growlm.cli.plan import plan
from growlm.cli.predict import predict
from growlm.cli.report import report
from growlm.cli.sample import sample
from growlm.cli.schema import schema
from growlm.cli.search import search
from growlm.cli.serve import serve
from growlm.cli.train import train
from growlm.cli.watch import watch
from growlm.errors import Elsewhere, GrowLMError, Preempted

app = typer.Typer(
    name="growlm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)

app.command()(demo)
app.command()(init)
app.command()(schema)
app.command()(doctor)
data.app.command()(signals)
data.app.command()(tokenizer)
app.add_typer(data.app, name="data")
app.command()(plan)
app.command()(train)
app.add_typer(launch.app, name="launch")
app.command()(grow)
app.command()(search)
app.command("import")(import_)
app.command()(export)
app.add_typer(evaluation.app, name="eval")
app.command()(sample)
app.command()(serve)
app.command()(watch)
app.command()(report)
app.command()(compare)
app.command()(coordcheck)
app.command()(predict)
app.add_typer(ckpt.app, name="ckpt")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"growlm {__version__}")
        raise typer.Exit


@app.callback()
def growlm(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="GROWLM_DEBUG", help="Show the traceback of a failure.")
    ] = False,
    _: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Pre-train language models cheaply by growing them."""
    if debug:
        os.environ["GROWLM_DEBUG"] = "1"


def main() -> None:
    """Run the command line; leaves through `sys.exit` with a code of docs/cli.md."""
    try:
        app()
    except Elsewhere as elsewhere:
        _show_traceback()
        sys.exit(elsewhere.exit_code)
    except Preempted as stop:
        _fail(str(stop), stop.exit_code, label="")
    except GrowLMError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}\n  run again with `growlm --debug ...`", 1)


def _fail(message: str, code: int, label: str = "error: ") -> None:
    _show_traceback()
    with suppress(OSError):  # a log on the full disk that the message is about must not cost the exit code
        typer.secho(f"{label}{message}", fg="red" if label else None, err=True)
    sys.exit(code)


def _show_traceback() -> None:
    if os.environ.get("GROWLM_DEBUG") == "1":
        traceback.print_exc()
