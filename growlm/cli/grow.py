"""`growlm grow`: grow one checkpoint into another, certified, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def grow(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or one checkpoint.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets the grown checkpoint.")],
    d_model: Annotated[int | None, typer.Option(min=1, help="New residual width.")] = None,
    n_heads: Annotated[int | None, typer.Option(min=1, help="New number of query heads.")] = None,
    n_kv_heads: Annotated[int | None, typer.Option(min=1, help="New number of key/value heads.")] = None,
    d_ff: Annotated[
        int | None, typer.Option(min=1, help="New hidden width of the feed-forward layer.")
    ] = None,
    n_layers: Annotated[int | None, typer.Option(min=1, help="New number of blocks.")] = None,
    vocab_size: Annotated[int | None, typer.Option(min=1, help="New number of token ids.")] = None,
    operator: Annotated[str, typer.Option(help="Width: masked, zero or clone.")] = "masked",
    depth: Annotated[str, typer.Option(help="Depth: masked, zero_block, stack or interpose.")] = "zero_block",
    ramp_steps: Annotated[int, typer.Option(help="Steps over which masks go 0 -> 1 in training.")] = 100,
    noise: Annotated[float, typer.Option(help="clone: paired noise on the copies.")] = 0.1,
    split: Annotated[float, typer.Option(help="clone: share of the first copy.")] = 0.5,
    certify: Annotated[str, typer.Option(help="Precision of the certificate: fp32 or fp64.")] = "fp32",
    data: Annotated[
        Path | None, typer.Option(help="Prepared data for the certificate; random tokens without it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of new weights.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Grow a checkpoint to a larger shape and certify that it still computes the same."""
    from growlm.train.restore import grow_offline

    sizes = {
        "d_model": d_model,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_ff": d_ff,
        "n_layers": n_layers,
        "vocab_size": vocab_size,
    }
    settings = {
        "operator": operator,
        "depth": depth,
        "ramp_steps": ramp_steps,
        "noise": noise,
        "split": split,
        "certify": certify,
    }
    asked = {name: size for name, size in sizes.items() if size is not None}
    entry = grow_offline(source, out, asked, settings, data=data, seed=seed)
    if as_json:
        typer.echo(json.dumps(entry))
        return
    c = entry["certificate"]
    typer.echo(f"grown checkpoint: {entry['path']}")
    typer.echo(f"max |dlogit| {c['max_dlogit']:.3g}   |dloss| {abs(c['dloss']):.3g}   ({c['precision']})")
    typer.echo("exact" if c["exact"] else "not exact, by design of the operator")
