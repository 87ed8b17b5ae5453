"""One way to tokenise the same documents, timed: `python -m benchmarks.tokenisation WAY CORES FOLDER`.

FOLDER holds `text.jsonl` and the work folder `work` of a preparation of it up to the trained tokenizer.
Prints the CPU seconds of all its processes: on a machine that is shared, time on the clock says nothing.
Starting, loading and, of processes, their start are not in them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import psutil

_BATCH_BYTES = 8 << 20


def growlm(folder: Path, cores: int) -> float:
    """The phase `encode` of `growlm data prepare`: from clean text in files to token ids in files, synced."""
    from growlm.data.pipeline.local import InProcess, Processes
    from growlm.data.pipeline.work import Work

    work = Work(folder / "work")
    shutil.rmtree(work.folder / "encode", ignore_errors=True)
    numbers = list(range(len(work.chunks)))
    runner = InProcess() if cores == 1 else Processes(cores)
    runner.run(work, "settle", numbers, lambda _: None)  # is done: only starts the processes
    try:
        return _seconds(lambda: runner.run(work, "encode", numbers, lambda _: None))
    finally:
        runner.close()


def encode_batch(folder: Path, cores: int) -> float:
    """The library's `encode_batch`, its threads on all cores; the result is thrown away."""
    return _library(folder, cores, "encode_batch")


def encode_batch_fast(folder: Path, cores: int) -> float:
    """The library's `encode_batch_fast`, which leaves out the places in the text."""
    return _library(folder, cores, "encode_batch_fast")


def datasets_batched(folder: Path, cores: int) -> float:
    """`datasets.map` in batches, one process per core: token ids into an Arrow file."""
    return _datasets(folder, batched=True, num_proc=cores)


def datasets_threads(folder: Path, cores: int) -> float:
    """`datasets.map` in batches, in one process, the tokenizer's threads on all cores."""
    del cores
    return _datasets(folder, batched=True, num_proc=None)


def datasets_single(folder: Path, cores: int) -> float:
    """`datasets.map` as it is by default, a document at a time; one process per core."""
    return _datasets(folder, batched=False, num_proc=cores)


WAYS: tuple[Callable[[Path, int], float], ...] = (
    growlm,
    encode_batch,
    encode_batch_fast,
    datasets_batched,
    datasets_threads,
    datasets_single,
)


def _library(folder: Path, cores: int, method: str) -> float:
    import tokenizers

    del cores
    tokenizer = tokenizers.Tokenizer.from_file(str(_tokenizer(folder)))
    encode = getattr(tokenizer, method)
    batches = list(_batches(_texts(folder)))

    def run() -> None:
        for batch in batches:
            encode(batch, add_special_tokens=False)

    return _seconds(run)


def _datasets(folder: Path, *, batched: bool, num_proc: int | None) -> float:
    from transformers import PreTrainedTokenizerFast

    datasets = import_module("datasets")
    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(_tokenizer(folder)))
    tokenizer.model_max_length = int(1e30)

    def ids(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = rows["text"]
        return {
            "ids": tokenizer(texts, return_attention_mask=False, return_token_type_ids=False)["input_ids"]
        }

    data = datasets.Dataset.from_dict({"text": _texts(folder)})
    with tempfile.TemporaryDirectory() as cache:
        num_proc = num_proc if num_proc and num_proc > 1 else None
        return _seconds(
            lambda: data.map(
                ids,
                batched=batched,
                num_proc=num_proc,
                remove_columns=["text"],
                cache_file_name=f"{cache}/ids.arrow",
                load_from_cache_file=False,
            )
        )


def _tokenizer(folder: Path) -> Path:
    return folder / "work" / "tokenizer" / "000000" / "tokenizer.json"


def _texts(folder: Path) -> list[str]:
    with (folder / "text.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def _batches(texts: list[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text.encode())
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _seconds(run: Callable[[], object]) -> float:
    """CPU seconds of this process and all below it, those that ended included."""
    start = _cpu()
    run()
    return _cpu() - start


def _cpu() -> float:
    own = os.times()
    alive = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return (
        own.user
        + own.system
        + own.children_user
        + own.children_system
        + sum(t.user + t.system for t in alive)
    )


if __name__ == "__main__":
    way, cores, folder = sys.argv[1:]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    print(next(each for each in WAYS if each.__name__ == way)(Path(folder), int(cores)))
