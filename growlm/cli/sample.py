"""`growlm sample`: continue a prompt, talk with a model, or judge a statement."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from growlm.errors import RecipeError

if TYPE_CHECKING:
    from growlm.inference.chat import Conversation


def sample(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="Run, checkpoint, or Hugging Face folder.")],
    prompt: Annotated[list[str] | None, typer.Option(help="Text to continue; may be repeated.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Turn by turn; without --prompt the rule on a terminal.")
    ] = False,
    form: Annotated[
        Literal["auto", "text", "instruction"],
        typer.Option("--format", help="How turns are written; auto: as the run has learnt it."),
    ] = "auto",
    judge: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="TEXT STATEMENT", help="How likely the statement about the text is true."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared data that holds the tokenizer.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=1, help="Draw from this many likeliest tokens.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 1,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens the model looks back on; as trained if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Continue prompts, talk turn by turn, or judge a statement, with a run's newest valid checkpoint."""
    chat = chat or (not prompt and judge is None and sys.stdin.isatty())
    if not (prompt or chat) and judge is None:
        raise RecipeError(
            "There is nothing to do", fix='--prompt "Once", --chat, or --judge "TEXT" "STATEMENT"'
        )
    for text in [*(prompt or []), *(judge or ())]:
        _refuse_bytes(text)
    from growlm.inference.chat import Conversation, checkpoint_path, go_on, is_instructed, tokenizer_of
    from growlm.inference.generate import Draw
    from growlm.inference.source import open_local
    from growlm.train.validate import judge as probability

    path = checkpoint_path(source)
    model = open_local(path, context=context, data=data)

    def draw() -> Draw:
        return Draw(temperature, seed=seed, top_k=top_k)

    true = None
    if judge is not None:
        true = probability(model.decoder, tokenizer_of(path, data), *judge, context=model.context)
    samples = [(text, go_on(model, text, draw(), tokens=tokens)) for text in prompt or []]
    if as_json:
        found = {"checkpoint": str(path), "samples": [{"prompt": p, "text": t} for p, t in samples]}
        if judge is not None:
            found["judged"] = {"text": judge[0], "statement": judge[1], "true": true}
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    if true is not None:
        typer.echo(f"P(true) = {true:.3f}")
    for p, t in samples:
        typer.echo(typer.style(p, bold=True) + t + "\n")
    if chat:
        instructed = is_instructed(path) if form == "auto" else form == "instruction"
        _talk(Conversation(model, draw, tokens=tokens, instructed=instructed))


def _talk(conversation: Conversation) -> None:
    """On a terminal with a line editor; else line by line, the answers alone."""
    from growlm.inference.chat import HELP, converse, visible

    if not sys.stdin.isatty():
        converse(conversation, _line, _printer(lambda text: text), None)
        return
    import readline  # noqa: F401  (input() then edits lines and knows those before)

    typer.secho(HELP, dim=True)
    converse(
        conversation,
        lambda: input("> "),
        _printer(visible),
        lambda text: typer.secho(text, dim=True, err=True),
    )


def _refuse_bytes(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecipeError("A text is no UTF-8", where=repr(text), fix="write it in UTF-8") from None


def _line() -> str:
    line = sys.stdin.readline().encode(errors="replace").decode()  # bytes that are no UTF-8 become "?"
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def _printer(shown: Callable[[str], str]) -> Callable[[str], None]:
    def show(text: str) -> None:
        print(shown(text), end="", flush=True)

    return show
