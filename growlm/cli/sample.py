"""`growlm sample`: continue a prompt with a run's newest checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def sample(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or one checkpoint.")],
    prompt: Annotated[list[str], typer.Option(help="Text to continue; may be repeated.")],
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
    """Continue prompts with the newest valid checkpoint of a run."""
    from growlm.train.restore import find_checkpoint, find_tokenizer, masked_model, trained_context
    from growlm.train.validate import generate

    checkpoint = find_checkpoint(source)
    tokenizer = find_tokenizer(checkpoint, data)
    model = masked_model(checkpoint)
    texts = [
        generate(
            model,
            tokenizer,
            text,
            tokens=tokens,
            context=context or trained_context(checkpoint),
            seed=seed,
            temperature=temperature,
            top_k=top_k,
        )
        for text in prompt
    ]
    if as_json:
        pairs = [{"prompt": p, "text": t} for p, t in zip(prompt, texts, strict=True)]
        typer.echo(json.dumps({"checkpoint": str(checkpoint.path), "samples": pairs}, ensure_ascii=False))
        return
    for p, t in zip(prompt, texts, strict=True):
        typer.echo(typer.style(p, bold=True) + t + "\n")
