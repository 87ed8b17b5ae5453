"""`growlm data tokenizer`: a vocabulary of one's own, trained on a weighted sample of a mixture."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import xxhash
from pydantic import BaseModel, ConfigDict

from growlm import __version__
from growlm.data.compression import compression
from growlm.data.draw import Drawn, draw
from growlm.data.folder import replace, work_folder
from growlm.data.pipeline.plan import Stamp, stamps
from growlm.data.pipeline.work import write_whole
from growlm.data.progress import QUIET, Progress
from growlm.data.reading.files import File, expand
from growlm.data.sources import SourceOptions, check_sources
from growlm.data.tiktoken_ranks import load_tokenizer
from growlm.data.tokenizer import Tokenizer, padded
from growlm.data.tokenizer_files import tokenizer_files
from growlm.errors import RecipeError
from growlm.testing.faults import fault_point

SAMPLE_BYTES = 32 << 20
"""Text that a tokenizer is trained on, of all sources together."""
MAX_BAD_ROWS = 100
REPORT = "report.json"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceReport(_Entry):
    """One source of a tokenizer."""

    sample_bytes: int
    """UTF-8 bytes that were trained on."""
    share: float
    """Of all text that was trained on, by bytes."""
    bad_rows: int
    held_bytes: int
    """UTF-8 bytes that were not trained on, which the rest is measured with."""
    bytes_per_token: float
    compared: float | None
    """Bytes per token of the tokenizer that was given for comparison."""


class Report(_Entry):
    """A trained tokenizer: `report.json` in its folder."""

    vocab_size: int
    padded_vocab_size: int
    """Rows of a model's embedding for it."""
    hash: str
    compared: str | None
    """The tokenizer that was given for comparison."""
    sources: dict[str, SourceReport]


class _Plan(_Entry):
    """All that decides what is drawn and trained."""

    version: str = __version__
    sources: dict[str, tuple[Stamp, ...]]
    sizes: dict[str, int]
    """Bytes to draw of each source."""


def train_vocabulary(
    out: Path,
    sources: Mapping[str, Sequence[str | Path]],
    *,
    vocab_size: int,
    weights: Mapping[str, float] | None = None,
    compare: Path | None = None,
    sample_bytes: int = SAMPLE_BYTES,
    progress: Progress = QUIET,
) -> Report:
    """Train a tokenizer on sources, each given by files, folders and globs, and write its folder `out`.

    `out` holds `tokenizer.json` and `tokenizer_config.json`, as transformers loads them, and `report.json`.
    After a kill the same call takes up the samples that were drawn; the training itself starts again.

    Args:
        vocab_size: tokens, `SPECIALS` among them.
        weights: shares of the sources in what it is trained on; need not add up to 1. None: equal.
        compare: another tokenizer, measured on the same held-out text.

    Raises:
        RecipeError: a flag is wrong, or `out` holds something. DataError: the text is wrong, or the other
        tokenizer. DiskError: `out` cannot be written. In each case `out` is as it was.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(
            "There is something in the output folder already", where=str(out), fix="name a new folder"
        )
    check_sources({name: SourceOptions(paths) for name, paths in sources.items()}, trains_tokenizer=True)
    other = None if compare is None else load_tokenizer(compare)
    files = {name: expand(paths) for name, paths in sources.items()}
    plan = _Plan(
        sources={name: stamps(found) for name, found in files.items()},
        sizes=_sizes(list(sources), weights, sample_bytes),
    )
    key = xxhash.xxh3_64_hexdigest(plan.model_dump_json().encode())
    with work_folder(out, key) as work:
        drawn = {name: _drawn(work, name, found, plan.sizes[name], progress) for name, found in files.items()}
        with progress.task("train on") as advance:
            tokenizer = Tokenizer.train(_texts(drawn, advance), vocab_size)
        fault_point("data.train")
        report = _report(tokenizer, drawn, other, compare)
        _write(work / "out", tokenizer, report)
        replace(out, work / "out")
    return report


def _sizes(names: list[str], weights: Mapping[str, float] | None, total: int) -> dict[str, int]:
    """Bytes to draw of each source. Raises RecipeError: weights of unknown sources, or nonsense."""
    weights = weights or dict.fromkeys(names, 1.0)
    if set(weights) != set(names):
        odd = sorted(set(weights) ^ set(names))
        raise RecipeError(
            f"The weights are not those of the sources: {', '.join(map(repr, odd))}",
            where="--weight",
            why="either every source has a weight, or none",
            fix=" ".join(f"--weight {name}=1" for name in names),
        )
    whole = math.fsum(weights.values())
    if not (math.isfinite(whole) and whole > 0 and min(weights.values()) >= 0):
        raise RecipeError(
            f"The weights {', '.join(map(str, weights.values()))} are no shares",
            where="--weight",
            why="each is 0 or more, and one of them more",
            fix=" ".join(f"--weight {name}=1" for name in names),
        )
    return {name: round(total * weights[name] / whole) for name in names}


def _drawn(work: Path, name: str, files: list[File], size: int, progress: Progress) -> Drawn:
    """The sample of a source; drawn if no earlier start has done it."""
    path = work / f"{name}.json"
    if path.exists():
        progress.say(f"{name}: the sample was drawn before")
    else:
        with progress.task(f"read {name}") as advance:
            write_whole(path, draw(name, files, size, MAX_BAD_ROWS, advance).to_json())
    return Drawn.from_json(path.read_bytes())


def _texts(drawn: Mapping[str, Drawn], advance: Callable[[int], None]) -> Iterator[str]:
    """All samples, evenly interleaved: training may not take all that comes late."""
    places = (
        ((index / len(source.texts), text) for index, text in enumerate(source.texts))
        for source in drawn.values()
    )
    for _, text in heapq.merge(*places):
        advance(len(text.encode()))
        yield text


def _report(
    tokenizer: Tokenizer, drawn: Mapping[str, Drawn], other: Tokenizer | None, compare: Path | None
) -> Report:
    total = sum(source.bytes for source in drawn.values())
    sources = {}
    for name, source in drawn.items():
        found = compression(tokenizer, source.held)
        sources[name] = SourceReport(
            sample_bytes=source.bytes,
            share=source.bytes / total,
            bad_rows=source.bad_rows,
            held_bytes=found.bytes,
            bytes_per_token=found.bytes_per_token,
            compared=compression(other, source.held).bytes_per_token if other else None,
        )
    return Report(
        vocab_size=tokenizer.vocab_size,
        padded_vocab_size=padded(tokenizer.vocab_size),
        hash=tokenizer.hash,
        compared=compare.name if compare else None,
        sources=sources,
    )


def _write(folder: Path, tokenizer: Tokenizer, report: Report) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in tokenizer_files(tokenizer).items():
        (folder / name).write_bytes(content)
    (folder / REPORT).write_text(report.model_dump_json(indent=1) + "\n")
