"""`growlm data prepare | inspect`: text into token shards, and a look into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from growlm.cli.options import fewer_tokens, pairs

if TYPE_CHECKING:
    import numpy as np

    from growlm.data.dataset import TokenDataset
    from growlm.data.manifest import Manifest
    from growlm.data.tokenizer import Tokenizer

app = typer.Typer(help="Turn text into token shards, and look into them.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def prepare(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Text: a file, folder or glob of .txt, .md, .jsonl (.gz, .zst), .parquet. Repeat for more.",
        ),
    ] = None,
    signals: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Propositions with their truth (`growlm data signals`)."),
    ] = None,
    instructions: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="Prompts with their answers, as .jsonl.")
    ] = None,
    tokens: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Text that is tokenised already, with --tokenizer."),
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Tokens of the tokenizer that is trained.")] = 8192,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Use this tokenizer.json or *.tiktoken instead of training one.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SHARE", help="A source's share of the text the tokenizer is trained on."),
    ] = None,
    license: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="Licence of documents that do not state their own."),
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(metavar="NAME=CODE", help="Leave out documents in other languages.")
    ] = None,
    near_duplicates: Annotated[bool, typer.Option(help="Leave out near copies (MinHash).")] = True,
    quality: Annotated[bool, typer.Option("--quality", help="Leave out what is no good text.")] = False,
    pii: Annotated[
        bool, typer.Option("--pii", help="Replace addresses, telephone numbers and keys.")
    ] = False,
    decontaminate: Annotated[
        list[Path] | None, typer.Option(help="Leave out documents that quote this evaluation set.")
    ] = None,
    validation_share: Annotated[float, typer.Option(help="Share of the documents that is held out.")] = 0.01,
    max_bad_rows: Annotated[
        int, typer.Option(min=0, help="So many rows that cannot be read are left out (quarantine.jsonl).")
    ] = 100,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one per core for large inputs.")
    ] = None,
    executor: Annotated[str, typer.Option(help="`local`, `slurm` or `ray` (through datatrove).")] = "local",
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="An option of datatrove's executor: partition=cpu, time=4:00:00."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace data that was prepared there before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Clean, split and tokenize text and examples into memory-mapped shards.

    Killed, the same command goes on where it stopped.
    """
    from growlm.errors import RecipeError

    if out.exists() and not force and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(
            "there is something in the output folder already",
            where=str(out),
            why="a run may be training on it: its data must not change",
            fix="name a new folder, or replace what was prepared there with --force",
        )
    from growlm.data.prepare import Cleaning, executor_of, sources_of
    from growlm.data.prepare import prepare as run
    from growlm.data.progress import Progress

    manifest = run(
        out,
        sources_of(
            {
                "text": pairs("--source", source),
                "signals": pairs("--signals", signals),
                "instructions": pairs("--instructions", instructions),
                "tokens": pairs("--tokens", tokens),
            },
            licenses=pairs("--license", license),
            languages=pairs("--language", language),
            weights=pairs("--weight", weight),
        ),
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        validation_share=validation_share,
        cleaning=Cleaning(near_duplicates, quality, pii, tuple(decontaminate or ())),
        max_bad_rows=max_bad_rows,
        workers=workers,
        executor=executor_of(executor, workers, dict(pairs("--cluster", cluster))),
        progress=Progress(),
    )
    summary = _summary(manifest)
    typer.echo(json.dumps(summary) if as_json else f"{_table(summary)}\nwritten to {out}")
    if tokenizer is None and manifest.tokenizer.vocab_size < vocab_size:
        typer.echo(fewer_tokens(vocab_size, manifest.tokenizer.vocab_size), err=True)


@app.command()
def inspect(
    out: Annotated[Path, typer.Argument(help="Folder written by `growlm data prepare`.")],
    source: Annotated[str | None, typer.Option(help="Show this source only.")] = None,
    split: Annotated[str, typer.Option(help="`train` or `valid`.")] = "train",
    n: Annotated[int, typer.Option("--n", min=0, help="Pieces to decode from each source.")] = 3,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every block first.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a folder of shards holds, with pieces of it decoded."""
    from growlm.data.dataset import TokenDataset
    from growlm.data.tokenizer import Tokenizer

    dataset = TokenDataset.open(out)
    names = _known(dataset, source, split)
    if verify:
        dataset.verify()
    summary = _summary(dataset.manifest) | {"fingerprint": dataset.fingerprint, "verified": verify}
    tokenizer = Tokenizer.load(dataset.tokenizer_path)
    summary["pieces"] = {name: _pieces(dataset, tokenizer, name, split, n) for name in names}
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else _report(summary, split))


def _known(dataset: TokenDataset, source: str | None, split: str) -> list[str]:
    """The sources to show. Raises RecipeError for an unknown source or split."""
    from growlm.data.manifest import SPLITS
    from growlm.errors import RecipeError
    from growlm.recipe.keys import did_you_mean

    for flag, word, known in (("--source", source, dataset.sources), ("--split", split, SPLITS)):
        if word is not None and word not in known:
            guess = did_you_mean(word, known) or known[0]
            raise RecipeError(
                f"There is no {word!r} here",
                where=flag,
                why=f"known: {', '.join(known)}",
                fix=f"{flag} {guess}",
            )
    return dataset.sources if source is None else [source]


def _summary(manifest: Manifest) -> dict[str, Any]:
    """The manifest without the lists of shards and blocks."""
    summary = manifest.model_dump(mode="json")
    for source in summary["sources"].values():
        for split in source["splits"].values():
            split["shards"] = len(split["shards"])
    return summary


def _pieces(
    dataset: TokenDataset, tokenizer: Tokenizer, source: str, split: str, count: int, length: int = 96
) -> list[dict[str, Any]]:
    """Decoded pieces at even distances in a stream."""
    total = dataset.tokens(source, split)
    length = min(length, total)
    starts = [i * (total - length) // max(1, count - 1) for i in range(count)]
    return [
        {"token": start, "text": tokenizer.decode(_plain(dataset.read(source, split, start, length)))}
        for start in starts
    ]


def _plain(ids: np.ndarray) -> list[int]:
    """Token ids without the marks of what is learnt."""
    from growlm.data.manifest import MARK

    return [number & (MARK - 1) for number in ids.tolist()]


def _table(summary: dict[str, Any]) -> str:
    columns = ("source", "kind", "split", "documents", "MB", "tokens", "bytes/token", "shards")
    rows = ["{:<12} {:<12} {:<6} {:>10} {:>10} {:>15} {:>12} {:>7}".format(*columns)]
    notes = []
    for name, source in summary["sources"].items():
        for split, part in source["splits"].items():
            megabytes, ratio = part["bytes"] / 1e6, part["bytes"] / part["tokens"]
            numbers = f"{part['documents']:>10,} {megabytes:>10,.2f} {part['tokens']:>15,} {ratio:>12.2f}"
            rows.append(f"{name:<12} {source['kind']:<12} {split:<6} {numbers} {part['shards']:>7,}")
        notes += [line for step in source["steps"] if (line := _changed(name, step))]
    tokenizer = summary["tokenizer"]
    notes.append(
        f"tokenizer: {tokenizer['vocab_size']:,} tokens as {summary['dtype']}, hash {tokenizer['hash']}"
    )
    return "\n".join([*rows, *notes])


def _changed(source: str, step: dict[str, Any]) -> str:
    """What a step has left out or changed; empty if nothing."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in step["reasons"].items() if count)
    left_out = step["documents_in"] - step["documents_out"]
    if not (left_out or reasons):
        return ""
    words = f"left out {left_out:,} of {step['documents_in']:,} documents" if left_out else "found"
    return f"{source}: {step['name']} {words}{f': {reasons}' if reasons else ''}"


def _report(summary: dict[str, Any], split: str) -> str:
    blocks = [_table(summary), f"fingerprint: {summary['fingerprint']}"]
    if summary["verified"]:
        blocks.append("every block of every shard is as it was written")
    for name, found in summary["pieces"].items():
        blocks += [f"\n[{name} {split}, token {piece['token']:,}]\n{piece['text']}" for piece in found]
    return "\n".join(blocks)
