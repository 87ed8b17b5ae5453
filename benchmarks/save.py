"""How long training stands still for saves at the default interval, as a share of its time.

    python benchmarks/save.py --folder /path/on/the/disk

A run saves every `checkpoint.every_seconds`, or after 100 times what the last save took, whichever is
longer (growlm/train/loop.py); a save blocks the step that follows it, all of it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import Others, table, wait_until_quiet, write_results
from peers.measure import Job
from peers.run_growlm import recipe_of

from growlm.checkpoint.store import CheckpointStore
from growlm.recipe.schema import Recipe
from growlm.train.state import TrainState

SIZES = {
    "small": Job(8, 256, 4, 8192, 256, 16, 8),
    "large": Job(12, 512, 8, 16384, 512, 4, 8),
    "152M": Job(16, 768, 12, 50304, 512, 4, 8),
}


def main() -> None:
    """Save each size a few times and write the table."""
    parser = argparse.ArgumentParser(description="Time that saves take from training.")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-busy", type=float, default=0.2, help="wait until fewer cores are in use")
    args = parser.parse_args()
    rows, data = [], {}
    for name, job in SIZES.items():
        recipe = recipe_of(job)
        wait_until_quiet(args.max_busy)
        with tempfile.TemporaryDirectory(dir=args.folder) as folder, Others() as others:
            seconds, size = saves(recipe, Path(folder), args.rounds)
        median = statistics.median(seconds)
        shares = [s / (s + max(recipe.checkpoint.every_seconds, 100 * s)) for s in (median, max(seconds))]
        data[name] = {"seconds": seconds, "bytes": size, "share": shares[0], "worst_share": shares[1]}
        cells = [f"{size / 1e6:,.0f} MB", f"{median:.2f} s", f"{size / median / 1e6:,.0f} MB/s"]
        rows.append([name, *cells, *(f"{share:.2%}" for share in shares), f"{others.cores:.1f}"])
    header = ["model", "checkpoint", "a save takes", "speed", "of the time", "at worst", "others"]
    write_results("save", table(header, rows), data)


def saves(recipe: Recipe, folder: Path, rounds: int) -> tuple[list[float], int]:
    """Seconds of each save, retention included, and the size of a checkpoint."""
    store = CheckpointStore(folder, recipe.checkpoint.keep)
    state = TrainState.fresh(recipe, torch.device("cpu"))
    facts = {"recipe_hash": "", "data_fingerprint": "", "tokenizer_hash": "", "environment": {}}
    seconds, size = [], 0
    for step in range(1, rounds + 1):
        state.progress.step = step
        started = time.perf_counter()
        path = state.save(store, facts, None)
        seconds.append(time.perf_counter() - started)
        size = sum(f.stat().st_size for f in path.iterdir())
    return seconds, size


if __name__ == "__main__":
    main()
