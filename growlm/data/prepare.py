"""`growlm data prepare`: text and examples in, verified token shards out, as one folder or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from growlm.data.card import CARD_JSON, CARD_MD, facts, markdown, samples_of
from growlm.data.cleaning.contamination import Contamination
from growlm.data.cleaning.evaluation_sets import evaluation_files
from growlm.data.cleaning.language import detector
from growlm.data.dataset import TokenDataset
from growlm.data.folder import replace, work_folder
from growlm.data.manifest import Manifest
from growlm.data.pipeline.assemble import OUT
from growlm.data.pipeline.executors import executor_of, local
from growlm.data.pipeline.plan import Plan, bytes_of, part_bytes_of, stamps
from growlm.data.pipeline.run import Run
from growlm.data.pipeline.steps import CONTAMINATION
from growlm.data.pipeline.tasks import Executor
from growlm.data.pipeline.work import PLAN, TOKENIZER, Work, write_whole
from growlm.data.progress import Progress
from growlm.data.sources import SourceOptions, check_sources, sources_of
from growlm.data.tiktoken_ranks import load_tokenizer
from growlm.data.tokenizer import Tokenizer, check_vocab_size
from growlm.errors import RecipeError

SHARD_BYTES = 256 << 20
MAX_BAD_ROWS = 100

__all__ = ["Cleaning", "SourceOptions", "executor_of", "prepare", "sources_of"]


@dataclass(frozen=True)
class Cleaning:
    """The steps that can be left out."""

    near_duplicates: bool = False
    quality: bool = False
    pii: bool = False
    decontaminate: Sequence[str | Path] = field(default=())
    """Files of evaluation sets; documents that quote one of them are left out."""


def prepare(
    out: Path,
    sources: Mapping[str, Sequence[str | Path] | SourceOptions],
    *,
    vocab_size: int = 8192,
    tokenizer: Path | None = None,
    validation_share: float = 0.01,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    part_bytes: int | None = None,
    cleaning: Cleaning | None = None,
    max_bad_rows: int = MAX_BAD_ROWS,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Manifest:
    """Write the token shards of some sources, each given by files, folders and globs, to `out`.

    The same input gives the same bytes, whatever the workers. A preparation that was killed goes on where
    it stopped when it is called again with the same arguments.

    Args:
        tokenizer: a `tokenizer.json` or `*.tiktoken` file; None trains one of `vocab_size` tokens.
        validation_share: share of each source's documents that is held out.
        shard_bytes: largest size of one shard.
        part_bytes: text of one task, about; None chooses by the size of the input.
        max_bad_rows: rows that are no documents and are left out (`quarantine.jsonl`) before it is an error.
        workers: processes; None is one per core, or this one only where the input is small.
        executor: runs the tasks elsewhere.

    Raises:
        RecipeError: a flag is wrong. DataError: the text or tokenizer is. DiskError: `out` cannot be
        written. In each case `out` is as it was.
    """
    options = {
        name: given if isinstance(given, SourceOptions) else SourceOptions(given)
        for name, given in sources.items()
    }
    check_sources(options, trains_tokenizer=tokenizer is None)
    _check_share(validation_share)
    if tokenizer is None:
        check_vocab_size(vocab_size)
    progress = progress or Progress(quiet=True)
    encoder = None if tokenizer is None else _load(tokenizer, options.values())
    cleaning = cleaning or Cleaning()
    sets = evaluation_files(cleaning.decontaminate)
    planned = {name: option.plan() for name, option in options.items()}
    _say_others(options, progress)
    plan = Plan(
        sources=planned,
        vocab_size=vocab_size,
        tokenizer=None if encoder is None else encoder.hash,
        validation_share=validation_share,
        shard_bytes=shard_bytes,
        part_bytes=part_bytes or part_bytes_of(bytes_of(planned)),
        max_bad_rows=max_bad_rows,
        near_duplicates=cleaning.near_duplicates,
        quality=cleaning.quality,
        pii=cleaning.pii,
        decontaminate=stamps(sets.values()),
        detector=detector() if any(one.language for one in planned.values()) else None,
    )
    with (
        work_folder(out, plan.key, progress.say) as folder,
        closing(executor or local(plan, workers)) as runner,
    ):
        work = Work(folder)
        begin(work, plan, encoder)
        manifest = Run(work, runner, progress).run()
        _write_card(folder / OUT, manifest)
        replace(out, folder / OUT)
    return manifest


def _check_share(validation_share: float) -> None:
    if not 0 < validation_share <= 0.5:
        raise RecipeError(
            f"A validation share of {validation_share} is not above 0 and at most 0.5",
            where="--validation-share",
            fix="--validation-share 0.01",
        )


def _say_others(sources: Mapping[str, SourceOptions], progress: Progress) -> None:
    """Say what the folders of each source hold that is not read."""
    for name, source in sources.items():
        if others := source.others():
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in others.items())
            progress.say(f"{name}: left out {sum(others.values()):,} files that are not read: {kinds}")


def _load(path: Path, sources: Iterable[SourceOptions]) -> Tokenizer:
    """The tokenizer that was given, with what the sources need."""
    tokenizer = load_tokenizer(path)
    return tokenizer.with_signals() if any(source.kind == "signals" for source in sources) else tokenizer


def begin(work: Work, plan: Plan, tokenizer: Tokenizer | None) -> None:
    """Write what all tasks share, unless an earlier start did; the plan is of this one."""
    work.sweep()
    if not (work.folder / PLAN).exists():
        if plan.decontaminate:
            sets = Contamination.of([Path(stamp.path) for stamp in plan.decontaminate])
            sets.save(work.folder / CONTAMINATION)
        if tokenizer is not None:
            with work.commit("tokenizer", 0) as folder:
                tokenizer.save(folder / TOKENIZER)
    elif not (work.folder / OUT).exists():  # killed after the folder was in its place
        shutil.rmtree(work.folder / "assemble", ignore_errors=True)
    write_whole(work.folder / PLAN, plan.model_dump_json().encode())


def _write_card(out: Path, manifest: Manifest) -> None:
    dataset = TokenDataset.open(out)
    card = facts(manifest, samples_of(dataset, Tokenizer.load(dataset.tokenizer_path)))
    (out / CARD_JSON).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (out / CARD_MD).write_text(markdown(card), "utf-8")
