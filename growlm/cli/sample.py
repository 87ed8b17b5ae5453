"""`growlm sample`: continue a prompt, or judge a statement, with a run's newest checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from growlm.errors import RecipeError


def sample(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or one checkpoint.")],
    prompt: Annotated[list[str] | None, typer.Option(help="Text to continue; may be repeated.")] = None,
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
    """Continue prompts, or judge a statement, with the newest valid checkpoint of a run."""
    from growlm.train.restore import find_checkpoint, find_tokenizer, masked_model, trained_context
    from growlm.train.validate import generate
    from growlm.train.validate import judge as probability

    if not prompt and judge is None:
        raise RecipeError("There is nothing to do", fix='--prompt "Once", or --judge "TEXT" "STATEMENT"')
    checkpoint = find_checkpoint(source)
    tokenizer = find_tokenizer(checkpoint, data)
    model = masked_model(checkpoint)
    context = context or trained_context(checkpoint)
    true = None if judge is None else probability(model, tokenizer, *judge, context=context)
    texts = [
        generate(
            model,
            tokenizer,
            text,
            tokens=tokens,
            context=context,
            seed=seed,
            temperature=temperature,
            top_k=top_k,
        )
        for text in prompt or []
    ]
    pairs = list(zip(prompt or [], texts, strict=True))
    if as_json:
        found = {"checkpoint": str(checkpoint.path), "samples": [{"prompt": p, "text": t} for p, t in pairs]}
        if judge is not None:
            found["judged"] = {"text": judge[0], "statement": judge[1], "true": true}
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    if true is not None:
        typer.echo(f"P(true) = {true:.3f}")
    for p, t in pairs:
        typer.echo(typer.style(p, bold=True) + t + "\n")
