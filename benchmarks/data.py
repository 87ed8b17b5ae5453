"""Speed and memory of the data path.

    python -m benchmarks.data [TEXT ...]      files as for `growlm data prepare`; the demo's text if none

- The mixture: tokens per second of CPU time on one core, from a folder warm in the page cache.
- Tokenisation: `growlm data prepare`'s phase `encode`, the `tokenizers` library itself, and Hugging Face
  `datasets.map`, each in a process of its own on the same documents of about 4,000 characters, in turn;
  megabytes per CPU second of all processes, medians over the rounds.
- Memory: largest sum of all processes' own memory (not the pages of mapped files, which the system takes back
  when it needs them) while generated inputs of two sizes are prepared by two workers, with near duplicates.
  The size of parts grows with the input, up to 64 MiB; here it is the same for both, so that what remains is
  what more input costs. Then once with parts of 64 MiB.

`datasets` is needed for its lines only: `pip install datasets transformers`.
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import psutil

from benchmarks.common import Others, table, write_results
from benchmarks.tokenisation import WAYS
from growlm.data.dataset import TokenDataset
from growlm.data.demo_text import demo_sources
from growlm.data.mixture import Mixture, Span
from growlm.data.pipeline.local import InProcess
from growlm.data.pipeline.plan import Plan, SourcePlan, stamps
from growlm.data.pipeline.run import Run
from growlm.data.pipeline.work import Work
from growlm.data.prepare import begin, prepare
from growlm.data.progress import QUIET
from growlm.data.reading.documents import documents
from growlm.data.reading.files import expand
from growlm.data.reading.text import cut

SHAPES = ((16, 256, 256), (16, 1024, 1024), (16, 1024, 256), (64, 2048, 256))
REPEATS, ROUNDS = 5, 3
SOURCE_BYTES = 2 << 20
DOCUMENT_CHARS = 3000
MEMORY_RUNS = ((30_000_000, 1 << 20), (120_000_000, 1 << 20), (120_000_000, 64 << 20))
"""Bytes of input, and of a part."""
_PREPARE = """
import sys
from pathlib import Path
from growlm.data.prepare import Cleaning, prepare
out, text, part_bytes = sys.argv[1:]
near = Cleaning(near_duplicates=True)
prepare(Path(out), {"text": [text]}, cleaning=near, workers=2, part_bytes=int(part_bytes))
"""


def main(paths: list[str]) -> None:
    """Measure, print, and write benchmarks/results/data.md."""
    sources = {Path(path).name: [path] for path in paths} or demo_sources()
    cores = sorted({1, len(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name, Others() as others:
        folder = Path(name)
        size = _write_texts(folder / "text.jsonl", sources)
        mixture = _mixture(folder)
        speeds = {count: _speeds(folder, count, size) for count in cores}
        memory = [_memory(folder / f"memory-{i}", *run) for i, run in enumerate(MEMORY_RUNS)]
    text = "\n".join(
        [
            _mixture_text(mixture),
            *(_speed_text(count, size, found) for count, found in speeds.items()),
            _memory_text(memory),
            f"Other work took {others.cores:.1f} cores meanwhile.\n",
        ]
    )
    data = {"mixture": mixture, "speeds": speeds, "memory": memory, "other_cores": others.cores}
    write_results("data", text, data)


def _write_texts(path: Path, sources: dict[str, list[Path]] | dict[str, list[str]]) -> int:
    """The beginning of each source as documents of `DOCUMENT_CHARS` and more; their bytes."""
    total = 0
    with path.open("w", encoding="utf-8") as file:
        for files in sources.values():
            size = 0
            whole = (document.text for document in documents(expand(files)))
            for text in chain.from_iterable(cut([each], DOCUMENT_CHARS) for each in whole):
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                size += len(text.encode())
                if size >= SOURCE_BYTES:
                    break
            total += size
    return total


def _mixture(folder: Path) -> dict[str, float]:
    """Tokens per second by shape."""
    prepare(folder / "data", {"text": [folder / "text.jsonl"]})
    dataset = TokenDataset.open(folder / "data")
    return {
        f"{batch} x {length} ({unit})": _served(dataset, batch, length, unit)
        for batch, length, unit in SHAPES
    }


def _served(dataset: TokenDataset, batch: int, length: int, unit: int) -> float:
    """Tokens per second of consecutive batches; the spans after the first only set the unit and the chunk."""
    weights = dict.fromkeys(dataset.sources, 1.0)
    steps = max(1, (1 << 21) // (batch * length))
    spans = [Span(steps, batch, length, weights), Span(0, 1, unit, weights)]
    rates = []
    for _ in range(REPEATS):
        mixture = Mixture(dataset, spans, seed=1)
        start = time.process_time()
        for step in range(steps):
            mixture.batch(0, step)
        rates.append(steps * batch * length / (time.process_time() - start))
    return statistics.median(rates)


def _speeds(folder: Path, cores: int, size: int) -> dict[str, list[float]]:
    """Megabytes per second of each way, round by round."""
    if not (folder / "work").exists():
        _prepare_until_encode(folder)
    ways = [way.__name__ for way in WAYS if not way.__name__.startswith("datasets") or find_spec("datasets")]
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            command = [sys.executable, "-m", "benchmarks.tokenisation", way, str(cores), str(folder)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[way].append(size / 1e6 / float(said.split()[-1]))
    return found


def _prepare_until_encode(folder: Path) -> None:
    work = Work(folder / "work")
    work.folder.mkdir()
    plan = Plan(
        sources={"text": SourcePlan(files=stamps([folder / "text.jsonl"]))},
        vocab_size=8192,
        tokenizer=None,
        validation_share=0.01,
        shard_bytes=256 << 20,
        part_bytes=1 << 20,
        max_bad_rows=0,
        near_duplicates=False,
        quality=False,
        pii=False,
        decontaminate=(),
    )
    begin(work, plan, None)
    run = Run(work, InProcess(), QUIET)
    run.scan()
    run.settle()
    run.train()


def _memory(folder: Path, size: int, part_bytes: int) -> int:
    """Largest memory of all processes of a preparation together."""
    folder.mkdir()
    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(_generated(size))
    arguments = [str(folder / "out"), str(folder / "text.jsonl"), str(part_bytes)]
    peak = 0
    with subprocess.Popen([sys.executable, "-c", _PREPARE, *arguments]) as process:
        while process.poll() is None:
            peak = max(peak, _private(psutil.Process(process.pid)))
            time.sleep(0.1)
    assert process.returncode == 0
    return peak


def _private(process: psutil.Process) -> int:
    """Bytes that a process and its children hold, without the pages of files that they map."""
    total = 0
    with suppress(psutil.Error, OSError):  # one has just ended
        for each in [process, *process.children(recursive=True)]:
            status = Path(f"/proc/{each.pid}/status").read_text()
            total += sum(int(kib) << 10 for kib in re.findall(r"RssAnon:\s+(\d+)", status))
    return total


def _generated(size: int) -> Iterator[str]:
    """Rows of documents of about 2 kB, together `size` bytes; a tenth are copies, a tenth nearly."""
    draw, numbers = random.Random(1), np.random.default_rng(1)
    words = np.array(["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(20_000)])
    done, before = 0, ""
    while done < size:
        kind = draw.random()
        text = before if kind < 0.1 else f"{before} more" if kind < 0.2 else ""
        text = text or " ".join(words[np.minimum(numbers.zipf(1.2, 350), 20_000) - 1])
        before = text[:2500]
        row = json.dumps({"text": text}) + "\n"
        done += len(row)
        yield row


def _mixture_text(rates: dict[str, float]) -> str:
    rows = [[shape, f"{rate / 1e6:.1f}"] for shape, rate in rates.items()]
    return "## Serving\n\n" + table(
        ["batch x seq_len (unit)", "million tokens/s of the mixture, one core"], rows
    )


def _speed_text(cores: int, size: int, found: dict[str, list[float]]) -> str:
    ours = found["growlm"]
    docs = {way.__name__: (way.__doc__ or "").partition("\n")[0] for way in WAYS}
    rows = [
        [
            f"`{way}`: {docs[way]}",
            f"{statistics.median(speeds):.2f}",
            f"{_ratio(ours, speeds):.2f}",
        ]
        for way, speeds in found.items()
    ]
    head = f"## Tokenisation on {cores} core{'s' if cores > 1 else ''}, {size / 1e6:.0f} MB, 8,192 tokens\n\n"
    return head + table(["way", "MB per CPU second", "GrowLM over it"], rows)


def _ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _memory_text(memory: list[int]) -> str:
    rows = [
        [f"{size / 1e6:.0f} MB", f"{part_bytes >> 20} MiB", f"{peak / 1e6:.0f} MB"]
        for (size, part_bytes), peak in zip(MEMORY_RUNS, memory, strict=True)
    ]
    (small, _), (large, _), _ = MEMORY_RUNS
    slope = (memory[1] - memory[0]) / (large - small)
    return (
        "## Memory, two workers, near duplicates\n\n"
        + table(["input", "parts", "all processes together, at most"], rows)
        + f"\n{slope * 1e3:.0f} MB more for each GB of input, and so "
        f"{(memory[2] + slope * (20e9 - large)) / 1e9:.2f} GB at 20 GB, with parts of 64 MiB.\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
