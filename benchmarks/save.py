"""How long training stands still for saves at the default interval, as a share of its time.

    python benchmarks/save.py --folder /path/on/the/disk

A save blocks training while it copies the state; the disk is for the background ("total" is all of it, with
nothing else to do). The copy is set beside one by numpy. The first save of a process also gets memory for the
copies from the system; it is in "at worst".
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from common import Others, table, wait_until_quiet, write_results
from peers.measure import Job
from peers.run_growlm import recipe_of

from growlm.checkpoint.store import CheckpointStore
from growlm.parallel.world import World
from growlm.recipe.schema import Recipe
from growlm.train.saver import Saved, Saver
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
            saved, copies = saves(recipe, Path(folder), args.rounds)
        blocked = [s.blocked_seconds for s in saved]
        usual, total, size = (
            statistics.median(blocked),
            statistics.median(s.seconds for s in saved),
            saved[0].bytes,
        )
        shares = [s / (s + max(recipe.checkpoint.every_seconds, 100 * s)) for s in (usual, max(blocked))]
        data[name] = {"saves": [asdict(s) | {"path": s.path.name} for s in saved], "numpy_copies": copies}
        data[name] |= {"share": shares[0], "worst_share": shares[1]}
        times = (f"{s:.2f} s" for s in (usual, statistics.median(copies), total))
        cells = [f"{size / 1e6:,.0f} MB", *times, f"{size / total / 1e6:,.0f} MB/s"]
        rows.append([name, *cells, *(f"{share:.2%}" for share in shares), f"{others.cores:.1f}"])
    header = ["model", "checkpoint", "blocked", "numpy's copy", "total", "speed"]
    write_results("save", table([*header, "of the time", "at worst", "others"], rows), data)


def saves(recipe: Recipe, folder: Path, rounds: int) -> tuple[list[Saved], list[float]]:
    """Each save, with as much time as it needs in the background, and seconds of a copy by numpy."""
    world = World.alone(torch.device("cpu"))
    store = CheckpointStore(folder, recipe.checkpoint.keep)
    state = TrainState.fresh(recipe, world)
    facts = {"recipe_hash": "", "data_fingerprint": "", "tokenizer_hash": "", "environment": {}}
    done, copies = [], []
    held = [shard.values.numpy() for shards in state.shards().values() for shard in shards.values()]
    into = [array.copy() for array in held]
    for _ in range(rounds):
        started = time.perf_counter()
        for source, target in zip(held, into, strict=True):
            np.copyto(target, source)
        copies.append(time.perf_counter() - started)
    del into
    with Saver(store, world) as saver:
        for step in range(1, rounds + 1):
            state.progress.step = step
            saver.begin(step, state.shards(), state.fields(facts, None))
            saved = None
            while saved is None:
                while not saver.is_written():
                    time.sleep(0.01)
                saved = saver.advance()
            done.append(saved)
    return done, copies


if __name__ == "__main__":
    main()
