"""`growlm eval`: its verbs, each in a file of its own."""

from __future__ import annotations

import typer

from growlm.cli.eval_context import context
from growlm.cli.eval_iq import iq
from growlm.cli.eval_knowledge import knowledge
from growlm.cli.eval_table import table

app = typer.Typer(
    help="Evaluate models: knowledge benchmarks, the IQ suite, long contexts.", no_args_is_help=True
)


@app.callback()
def eval_() -> None:
    """Evaluate models: knowledge benchmarks, the IQ suite, long contexts."""


app.command()(context)
app.command()(iq)
app.command()(knowledge)
app.command()(table)
