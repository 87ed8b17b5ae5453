"""Growth of a checkpoint, weights and moments, against copying as many bytes on the same disk, in turn.

    python benchmarks/grow.py --folder /path/on/the/disk

A llama of d_model 512 grows to 1024 in width, depth, heads and feed-forward: 0.1 GB in, 0.7 GB out. Both
the growth and the copy end with everything on the disk (fsync). Memory is the anonymous memory that the
growing process takes beyond its imports; the certificate, which runs both models, is not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from common import Others, table, wait_until_quiet, write_results

from growlm.checkpoint.manifest import Manifest
from growlm.checkpoint.store import Checkpoint, CheckpointStore, Pending
from growlm.growth.operators import plan_growth
from growlm.model.parameters import parameter_table
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.train.grow import stream_moments, stream_weights
from growlm.train.state import MODEL_FILE, OPTIMIZER_FILE

SMALL = ModelConfig(
    family="llama", d_model=512, n_heads=8, n_kv_heads=4, head_dim=64, d_ff=1408, n_layers=3, vocab_size=8192
)
LARGE = SMALL.with_(d_model=1024, n_heads=16, n_kv_heads=8, d_ff=2816, n_layers=4)
OPERATORS = {
    "clone + zero_block": {"operator": "clone", "depth": "zero_block"},
    "clone without noise": {"operator": "clone", "depth": "zero_block", "noise": 0.0},
    "masked + masked": {"operator": "masked", "depth": "masked"},
    "zero + zero_block": {"operator": "zero", "depth": "zero_block"},
}
LARGEST = 4 * max(p.numel for p in parameter_table(LARGE).values())


def main() -> None:
    """Measure every operator against the copy, and write the table."""
    parser = argparse.ArgumentParser(description="Growth against the disk's copy bandwidth.")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-busy", type=float, default=0.2, help="wait until fewer cores are in use")
    parser.add_argument("--grow", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.grow:
        return grow(Path(args.grow[0]), OPERATORS[args.grow[1]])
    rows, data = [], {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        make_checkpoint(Path(folder))
        for name in OPERATORS:
            runs = [one_round(Path(folder), name, args.max_busy) for _ in range(args.rounds)]
            data[name] = runs
            rows.append(row(name, runs))
    header = [
        "growth",
        "written",
        "growth MB/s",
        "copy MB/s",
        "share",
        "memory",
        "/ largest tensor",
        "others",
    ]
    write_results("grow", table(header, rows), data)
    return None


def row(name: str, runs: list[dict[str, float]]) -> list[str]:
    """Medians of the rounds; the share is the median of each round's own."""
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    share = statistics.median(run["grow"] / run["copy"] for run in runs)
    return [
        name,
        f"{median['bytes'] / 1e6:,.0f} MB",
        f"{median['grow'] / 1e6:,.0f}",
        f"{median['copy'] / 1e6:,.0f}",
        f"{share:.0%}",
        f"{median['memory'] / 1e6:,.0f} MB",
        f"{median['memory'] / LARGEST:.2f}",
        f"{max(run['others_cores'] for run in runs):.1f}",
    ]


def make_checkpoint(folder: Path) -> None:
    """A checkpoint of the small model, weights and moments random."""
    parameters = parameter_table(SMALL).values()
    with CheckpointStore(folder, keep=2).begin(1) as pending:
        kinds = {MODEL_FILE: [""], OPTIMIZER_FILE: ["exp_avg/", "exp_avg_sq/"]}
        for file, prefixes in kinds.items():
            entries = [(f + p.name, torch.float32, p.shape) for f in prefixes for p in parameters]
            writer = pending.writer(file, entries)
            for _, dtype, shape in entries:
                writer.write(torch.rand(shape, dtype=dtype))
        commit(pending, SMALL)


def commit(pending: Pending, config: ModelConfig) -> Path:
    """Commit with a manifest that says no more than it must."""
    counts: dict[str, Any] = dict.fromkeys(("stage", "stage_step", "tokens", "updates", "skipped"), 0)
    texts = dict.fromkeys(("recipe_hash", "data_fingerprint", "tokenizer_hash"), "")
    objects: dict[str, Any] = {"lineage": [], "births": {}, "guard": {}, "environment": {}}
    side = "after_growth" if config == LARGE else None
    numbers: dict[str, Any] = {"train_seconds": 0.0, "flops": 0.0, "mask": 1.0, "boundary": side}
    return pending.commit(model=config.to_dict(), **counts, **texts, **objects, **numbers)


def one_round(folder: Path, operator: str, max_busy: float) -> dict[str, float]:
    """Grow in a process of its own, then copy what it wrote; bytes per second of both."""
    os.sync()
    wait_until_quiet(max_busy)
    with Others() as others:
        grown = measure(folder, operator)
    return grown | {"others_cores": others.cores}


def measure(folder: Path, operator: str) -> dict[str, float]:
    """One growth and one copy."""
    command = [sys.executable, __file__, "--grow", str(folder), operator]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    grown: dict[str, Any] = json.loads(out.splitlines()[-1])
    source, target = Path(grown.pop("path")), folder / "copy"
    os.sync()
    started = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    for path in [*target.iterdir(), target]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    seconds = time.perf_counter() - started
    shutil.rmtree(source)
    shutil.rmtree(target)
    written = grown["bytes"]
    return {**grown, "grow": written / grown["seconds"], "copy": written / seconds}


def grow(folder: Path, settings: dict[str, Any]) -> None:
    """Grow the checkpoint in `folder` and print what it took."""
    store = CheckpointStore(folder, keep=2)
    source = next(e.path for e in store.checkpoints() if not e.grown)
    checkpoint = Checkpoint(source, Manifest.load(source / "manifest.json"))
    growth = plan_growth(SMALL, LARGE, GrowthTable.model_validate(settings))
    with PeakMemory() as memory:
        started = time.perf_counter()
        with store.begin(1) as pending:
            stream_weights(checkpoint, growth, pending, 1)
            stream_moments(checkpoint, growth, pending, 1)
            path = commit(pending, LARGE)
        seconds = time.perf_counter() - started
    size = sum(f.stat().st_size for f in path.iterdir())
    print(json.dumps({"path": str(path), "bytes": size, "seconds": seconds, "memory": memory.peak}))


class PeakMemory:
    """The most anonymous memory held at a time, in bytes above what was held at the start."""

    def __enter__(self) -> PeakMemory:
        self.start, self.peak, self._done = _anonymous(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak = max(self.peak, _anonymous() - self.start)


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


if __name__ == "__main__":
    main()
