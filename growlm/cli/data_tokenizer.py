"""`growlm data tokenizer`: train a vocabulary on a weighted sample of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from growlm.cli.options import fewer_tokens, pairs, shares

if TYPE_CHECKING:
    from growlm.data.vocabulary import Report

_SHORT = 0.9
"""Less than this share of what its weight asks for is worth a warning."""


def tokenizer(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    source: Annotated[
        list[str],
        typer.Option(metavar="NAME=PATH", help="Text, as for `growlm data prepare`. Repeat for more."),
    ],
    vocab_size: Annotated[int, typer.Option(help="Tokens, the special ones among them.")] = 100_256,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SHARE", help="A source's share of the text it is trained on; else equal."),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="A tokenizer.json or *.tiktoken to compare the compression with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a byte-level BPE tokenizer; says how well it compresses text that it has not seen."""
    from growlm.data.progress import Progress
    from growlm.data.vocabulary import train_vocabulary

    sources: dict[str, list[str | Path]] = {}
    for name, path in pairs("--source", source):
        sources.setdefault(name, []).append(path)
    report = train_vocabulary(
        out,
        sources,
        vocab_size=vocab_size,
        weights=shares("--weight", weight),
        compare=compare,
        progress=Progress(),
    )
    typer.echo(report.model_dump_json() if as_json else f"{_table(report)}\n{_next(out, report)}")
    if report.vocab_size < vocab_size:
        typer.echo(fewer_tokens(vocab_size, report.vocab_size), err=True)
    for line in _short_of_text(report, shares("--weight", weight)):
        typer.echo(line, err=True)


def _short_of_text(report: Report, asked: Mapping[str, float]) -> Iterator[str]:
    """A line for each source that has less text than its weight asks for."""
    total = sum(asked.values())
    for name, weight in asked.items():
        share = report.sources[name].share
        if share < _SHORT * weight / total:
            yield (
                f"warning: {name} is {share:.1%} of the sample, not {weight / total:.1%}: it has no more text"
            )


def _table(report: Report) -> str:
    other = report.compared or ""
    rows = [
        f"{'source':<12} {'trained on MB':>13} {'share':>6} {'held out MB':>11} {'bytes/token':>11}  {other}"
    ]
    for name, found in report.sources.items():
        compared = "" if found.compared is None else f"  {found.compared:.2f}"
        rows.append(
            f"{name:<12} {found.sample_bytes / 1e6:>13,.1f} {found.share:>6.1%} "
            f"{found.held_bytes / 1e6:>11,.2f} {found.bytes_per_token:>11.2f}{compared}"
        )
    rows += [f"{n}: {s.bad_rows} bad rows left out" for n, s in report.sources.items() if s.bad_rows]
    return "\n".join(rows)


def _next(out: Path, report: Report) -> str:
    return (
        f"{report.vocab_size:,} tokens; a model for them has vocab_size = {report.padded_vocab_size}\n"
        f"written to {out}; next: growlm data prepare FOLDER --source ... --tokenizer {out}/tokenizer.json"
    )
