"""Speed of the data path: tokens served by the mixture on one core, and tokenisation against `tokenizers`.

    python -m benchmarks.data [TEXT ...]      files as for `growlm data prepare`; the demo's text if none

The mixture is read from a folder prepared of the same text, warm in the page cache, first touches
verified; tokens per second of CPU time, so that other work on the machine does not count.
Tokenisation: megabytes per second of `prepare`'s own encoder (ids as an array, ready to be written) over
the library's `encode_batch_fast` of the same batches, run in turn on all cores; medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tokenizers

from growlm.data.dataset import TokenDataset
from growlm.data.demo_text import demo_sources
from growlm.data.mixture import Mixture, Span
from growlm.data.pipeline.encode import encode
from growlm.data.prepare import prepare
from growlm.data.reading.documents import documents
from growlm.data.reading.files import expand
from growlm.data.segments import Segment
from growlm.data.tokenizer import Tokenizer

SHAPES = ((16, 256, 256), (16, 1024, 1024), (16, 1024, 256), (64, 2048, 256))
REPEATS = 5
TEXT_BYTES = 16 << 20


def main(paths: list[str]) -> None:
    """Print both tables."""
    sources = {"text": paths} if paths else {name: list(files) for name, files in demo_sources().items()}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "data"
        prepare(out, sources)
        dataset = TokenDataset.open(out)
        print("batch x seq_len (unit)      tokens/s of the mixture, one core")
        for batch, length, unit in SHAPES:
            rate = served(dataset, batch, length, unit) / 1e6
            print(f"{batch:>5} x {length:<7} ({unit:>4})      {rate:>7.1f} M")
        texts = _texts([path for files in sources.values() for path in files])
        ours, theirs = tokenised(out / "tokenizer.json", texts)
        print(
            f"tokenisation: {ours:.2f} MB/s, tokenizers itself {theirs:.2f} MB/s, ratio {ours / theirs:.2f}"
        )


def served(dataset: TokenDataset, batch: int, length: int, unit: int) -> float:
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


def tokenised(path: Path, texts: list[str]) -> tuple[float, float]:
    """Megabytes per second: ours, and the library's."""
    ours, theirs = Tokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))
    size = sum(len(text.encode()) for text in texts) / 1e6

    def run_ours() -> None:
        for _ in encode(((0, [Segment(text)]) for text in texts), ours, np.dtype("<u2")):
            pass

    def run_theirs() -> None:
        theirs.encode_batch_fast(texts, add_special_tokens=False)

    times = [(_seconds(run_ours), _seconds(run_theirs)) for _ in range(REPEATS)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return size / medians[0], size / medians[1]


def _texts(paths: list[str | Path]) -> list[str]:
    texts, size = [], 0
    for document in documents(expand(paths)):
        text = document.text
        texts.append(text)
        size += len(text.encode())
        if size > TEXT_BYTES:
            break
    return texts


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1:])
