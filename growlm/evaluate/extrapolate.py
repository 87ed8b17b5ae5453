"""Perplexity against context length: a model on windows longer than it was trained on.

Held-out text is cut into windows of `longest` times the trained length T. A window is read once, whole, so
the target at position i is predicted from the i tokens before it. Two views of its losses, in nats per token:

- by position: the mean over the targets of a bucket of T / 8 positions, which says whether a token far beyond
  T is still predicted well;
- by length: the mean over the first L targets, L = T/4, T/2, T, 2T, ...: what a text of L tokens costs.

Intervals are 95 %, mean +- 1.96 standard errors over windows.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import growlm
from growlm.data.dataset import TokenDataset
from growlm.data.progress import Progress
from growlm.errors import CheckpointError, DataError, RecipeError
from growlm.evaluate.result import Evaluated, Result, Score
from growlm.inference.facts import facts
from growlm.inference.source import open_local
from growlm.model.decoder import Decoder
from growlm.model.parameters import family_of
from growlm.recipe.shape import ModelConfig
from growlm.train.restore import find_checkpoint, find_tokenizer
from growlm.train.stored import stored_recipe

GROUPS = ("context/position", "context/length")
BUCKETS = 8
"""Buckets of positions per trained length."""
_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Asked:
    """On what a model is measured."""

    data: Path
    source: str | None = None
    """None: the first source of running text."""
    longest: int = 4
    """Window over trained length."""
    windows: int = 64


def measure_context(
    run: Path, asked: Asked, *, name: str | None = None, device: str = "auto", quiet: bool = True
) -> Result:
    """The losses of a run or checkpoint by position and by length, as scores in nats per token.

    `name`: what the result calls it; its own if not given.

    Raises CheckpointError: no checkpoint, other data, or learned positions, which end where training ended;
    RecipeError: no such source; DataError: too little held-out text.
    """
    dataset = TokenDataset.open(asked.data)
    source = _source(dataset, asked.source)
    checkpoint = find_checkpoint(run)
    find_tokenizer(checkpoint, asked.data)
    opened = open_local(run, precision="fp32", data=asked.data, device=device)
    model, trained = opened.decoder, opened.context
    _refuse_learned_positions(model, run)
    recipe = stored_recipe(checkpoint.path.parent.parent)
    if recipe is not None and recipe.data.document_mask:
        model.document_end = dataset.manifest.tokenizer.eos_id
    length = trained * asked.longest
    held = dataset.validation(source, length, asked.windows * length)
    if len(held.tokens) < 2:
        raise DataError(
            f"The held-out text of {source!r} fills one window of {length:,} tokens; an interval needs two",
            where=str(asked.data),
            fix="ask for less: --longest 2, or prepare data with a larger --validation-share",
        )
    tokens, targets = torch.from_numpy(held.tokens), torch.from_numpy(held.targets)
    losses = window_losses(model, tokens, targets, run.name, quiet=quiet)
    settings: dict[str, Any] = {
        "data": dataset.fingerprint,
        "source": source,
        "trained": trained,
        "longest": asked.longest,
        "windows": len(losses),
        "positions": positions_text(model.config),
    }
    told = facts(run)
    evaluated = Evaluated(**told | {"identity": opened.identity, "name": name or told["name"]})
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    scores = context_scores(losses, trained)
    return Result("context", evaluated, scores, settings, growlm.__version__, now)


@torch.no_grad()
def window_losses(
    model: Decoder, tokens: Tensor, targets: Tensor, name: str = "", *, quiet: bool = True
) -> Tensor:
    """The loss of each target (N, T) of windows, fp64 on the CPU, in nats."""
    rows = max(1, _BATCH_TOKENS // tokens.shape[1])
    found = []
    with Progress(quiet=quiet).task(name, len(tokens), "windows") as advance:
        for x, y in zip(tokens.split(rows), targets.split(rows), strict=True):
            x, y = x.to(model.device), y.to(model.device)
            _, losses = model.head_loss(model(x, documents=x), y)
            found.append(losses.view(x.shape).double().cpu())
            advance(len(x))
    return torch.cat(found)


def context_scores(losses: Tensor, trained: int) -> list[Score]:
    """Mean losses (N, length) by position and by length, with intervals over the N windows."""
    length, bucket = losses.shape[1], max(1, trained // BUCKETS)
    by_position = [(end, losses[:, end - bucket : end]) for end in range(bucket, length + 1, bucket)]
    by_length = [(end, losses[:, :end]) for end in _lengths(trained, length)]
    return [
        _score(end, part.mean(1), group)
        for group, parts in zip(GROUPS, (by_position, by_length), strict=True)
        for end, part in parts
    ]


def positions_text(config: ModelConfig) -> str:
    """How a model knows positions, in words: a scale base too large for fp32 to see is RoPE."""
    kind = family_of(config).position
    if kind == "xpos" and config.xpos_scale_base < 1e9:
        return f"xPos, scale base {config.xpos_scale_base:g}"
    return "RoPE"


def _lengths(trained: int, longest: int) -> Iterator[int]:
    length = max(1, trained // 4)
    while length <= longest:
        yield length
        length *= 2


def _score(end: int, means: Tensor, group: str) -> Score:
    """Of the means (N) of windows, of which there are two at least."""
    mean = means.mean().item()
    half = 1.96 * means.std().item() / len(means) ** 0.5
    return Score(str(end), "nats", mean, mean - half, mean + half, len(means), group)


def _source(dataset: TokenDataset, name: str | None) -> str:
    """Raises RecipeError."""
    texts = [source for source in dataset.sources if dataset.kind(source) == "text"]
    if name is None and texts:
        return texts[0]
    if name in texts:
        return name
    raise RecipeError(
        f"{name!r} is no source of running text" if name else "this data has no source of running text",
        where=f"--source {name}" if name else str(dataset.path),
        fix=f"one of: {', '.join(texts)}"
        if texts
        else "prepare text: growlm data prepare OUT --source NAME=PATH",
    )


def _refuse_learned_positions(model: Decoder, run: Path) -> None:
    if family_of(model.config).position == "learned":
        raise CheckpointError(
            f"the model has learned {model.config.max_positions} positions and knows no others",
            where=str(run),
            why="its context cannot be stretched",
            fix="name a run with rotary positions: every family but gpt2 and opt",
        )
