"""Growth against its ceilings, each in turn on the same machine.

    python benchmarks/grow.py --folder /path/on/the/disk          # 0.2B -> 0.7B; and a state in memory
    python benchmarks/grow.py --folder /path/on/the/disk --large  # 1.3B -> 2.8B; and -> 5B like the peer

- folder: a bf16 Llama folder grows into another. Ceiling: `cp` of as many bytes on the same disk; both end
  with everything on the disk (fsync). The certificate is timed apart.
- memory: weights and moments of a model in memory grow. Ceiling: numpy copying as many bytes.
- peer (--large): HyperCloning through transformers objects (peers/run_hypercloning.py), folder to folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import Others, table, wait_until_quiet, write_results

from growlm.checkpoint.format import TensorWriter
from growlm.convert import grow as grow_module
from growlm.convert.dialects import DIALECTS
from growlm.convert.write import to_json
from growlm.growth.apply import grow_rows
from growlm.growth.operators import plan_growth
from growlm.model.parameters import n_parameters, parameter_table
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.recipe.sizes import parse_sizes
from growlm.train.offline import grow_offline

MEDIUM = ModelConfig(
    family="llama", d_model=1024, n_heads=16, n_kv_heads=16, head_dim=64, d_ff=2816, n_layers=12,
    vocab_size=32_000, max_positions=2048,
)  # fmt: skip
LARGE = MEDIUM.with_(d_model=2048, n_heads=32, n_kv_heads=32, d_ff=5632, n_layers=24)

GROWTHS = {
    "clone": ("width=2x", {"operator": "clone"}),
    "clone without noise": ("width=2x", {"operator": "clone", "noise": 0.0, "force": True}),
    "zero": ("width=2x", {"operator": "zero"}),
    "lemon 1.5x": ("width=1.5x", {"operator": "lemon"}),
    "clone ffn, zero_block": ("d_ff=2x,n_layers=31", {"operator": "clone"}),
}
Json = dict[str, Any]


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description="Growth against copying, and against a peer.")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="1.3B parameters, and the peer")
    parser.add_argument("--max-busy", type=float, default=0.2, help="wait until fewer cores are in use")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(grow_once(Path(args.one[0]), args.one[1], Path(args.one[2]))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        small = LARGE if args.large else MEDIUM
        make_folder(folder / "small", small)
        growths = ["clone ffn, zero_block", "clone"] if args.large else list(GROWTHS)[:4]
        data: Json = {growth: rounds(folder, growth, args) for growth in growths}
        text = folder_table(small, data)
        if args.large:
            data["peer"] = [peer(folder, args.max_busy) for _ in range(args.rounds)]
            text += "\n" + peer_table(data)
        else:
            data["memory"] = {g: in_memory(g, args.rounds) for g in list(GROWTHS)[:4]}
            text += "\n" + memory_table(data["memory"])
    write_results("grow_large" if args.large else "grow", text, data)


def make_folder(folder: Path, config: ModelConfig) -> None:
    """A Llama folder in bf16 with random weights and no tokenizer."""
    folder.mkdir()
    dialect = DIALECTS["llama"]
    (folder / "config.json").write_bytes(to_json(dialect.write_config(config) | {"dtype": "bfloat16"}))
    entries = [(t.name, torch.bfloat16, t.shape) for t in dialect.tensors(config)]
    with TensorWriter(folder / "model.safetensors", entries) as writer:
        for _, dtype, shape in entries:
            writer.write(
                (torch.randn(shape) * 0.02).to(dtype) if len(shape) > 1 else torch.ones(shape, dtype=dtype)
            )


def rounds(folder: Path, growth: str, args: argparse.Namespace) -> list[Json]:
    """Growths and copies of what they wrote, in turn."""
    found = []
    for _ in range(args.rounds):
        os.sync()
        wait_until_quiet(args.max_busy)
        with Others() as others:
            grown = python("--one", str(folder / "small"), growth, str(folder / "grown"))
            grown["copy_seconds"] = copy(folder / "grown", folder / "copy")
        shutil.rmtree(folder / "grown")
        found.append(grown | {"others": others.cores})
    return found


def python(*arguments: str) -> Json:
    """This script in a process of its own; the JSON in its last line."""
    command = [sys.executable, __file__, *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def grow_once(source: Path, growth: str, out: Path) -> Json:
    """Grow a folder: seconds and peak memory until its bytes are on the disk, then of the certificate."""
    to, settings = GROWTHS[growth]
    marks: list[float] = []
    certify = grow_module.certify_as

    def timed(*args: Any) -> Json:
        marks.extend((time.perf_counter(), peak_memory()))
        return certify(*args)

    started = time.perf_counter()
    with patch.object(grow_module, "certify_as", timed):
        entry = grow_offline(
            source, to, settings, out, data=None, seed=1, certificate="auto", shard_bytes=5 * 10**9
        )
    return {
        "seconds": marks[0] - started,
        "certificate_seconds": time.perf_counter() - marks[0],
        "peak": marks[1],
        "certificate_peak": peak_memory(),
        "bytes": sum(f.stat().st_size for f in out.iterdir()),
        "largest": 2 * max(p.numel for p in parameter_table(ModelConfig(**entry["to"])).values()),
        "parameters": n_parameters(ModelConfig(**entry["to"])),
        "kind": entry["certificate"]["kind"],
        "max_dlogit": entry["certificate"].get("max_dlogit"),
        "exact": entry["certificate"]["exact"],
    }


def peak_memory() -> int:
    """Most resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def copy(source: Path, target: Path) -> float:
    """Seconds of `cp` until everything is on the disk; the copy is removed."""
    os.sync()
    started = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    for path in [*target.iterdir(), target]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    return seconds


def peer(folder: Path, max_busy: float) -> Json:
    """HyperCloning through transformers objects, and its peak memory."""
    os.sync()
    wait_until_quiet(max_busy)
    script = Path(__file__).parent / "peers" / "run_hypercloning.py"
    command = [sys.executable, str(script), str(folder / "small"), str(folder / "peer")]
    with Others() as others:
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        os.sync()
    shutil.rmtree(folder / "peer")
    return json.loads(out.splitlines()[-1]) | {"others": others.cores}


def in_memory(growth: str, times: int) -> Json:
    """Bytes per second of growing a state in memory, and of numpy copying as many, in turn; one thread."""
    torch.set_num_threads(1)
    to, settings = GROWTHS[growth]
    old = MEDIUM.with_(n_layers=2)
    plan = plan_growth(old, parse_sizes(to, old), GrowthTable.model_validate(settings))
    state = {n: torch.randn(p.shape) for n, p in parameter_table(old).items()}
    read = lambda name, a, b: state[name][a:b]  # noqa: E731
    speeds: dict[str, list[float]] = {"weight": [], "exp_avg": [], "exp_avg_sq": [], "copy": []}
    for _ in range(times):
        for kind in ("weight", "exp_avg", "exp_avg_sq"):
            started = time.perf_counter()
            grown = [
                grow_rows(plan, p, kind, 0, p.shape[0], read) for p in parameter_table(plan.new).values()
            ]
            size = sum(t.numel() * 4 for t in grown)
            speeds[kind].append(size / (time.perf_counter() - started))
        arrays = [t.numpy() for t in grown]
        started = time.perf_counter()
        copies = [np.copy(a) for a in arrays]
        speeds["copy"].append(sum(a.nbytes for a in copies) / (time.perf_counter() - started))
    rates = {kind: statistics.median(found) for kind, found in speeds.items()}
    state_rate = 3 / sum(1 / rates[kind] for kind in ("weight", "exp_avg", "exp_avg_sq"))
    return rates | {"state": state_rate, "share": state_rate / rates["copy"]}


def folder_table(small: ModelConfig, data: Json) -> str:
    """Folder to folder, against `cp`."""
    header = ["folder to folder", "parameters", "written", "growth MB/s", "cp MB/s", "share", "peak memory",
              "limit", "certificate", "others"]  # fmt: skip
    return table(header, [folder_row(name, small, runs) for name, runs in data.items()])


def folder_row(name: str, small: ModelConfig, runs: list[Json]) -> list[str]:
    """Medians of the rounds; the share is the median of each round's own."""
    median = {
        k: statistics.median(r[k] for r in runs) for k in runs[0] if isinstance(runs[0][k], (int, float))
    }
    mega = {key: value / 1e6 for key, value in median.items()}
    share = statistics.median(r["copy_seconds"] / r["seconds"] for r in runs)
    certificate = (
        f"{runs[0]['kind']}, {median['certificate_seconds']:.0f} s, {mega['certificate_peak']:,.0f} MB"
    )
    return [
        name,
        f"{n_parameters(small) / 1e9:.2f}B -> {median['parameters'] / 1e9:.2f}B",
        f"{mega['bytes']:,.0f} MB",
        f"{mega['bytes'] / median['seconds']:,.0f}",
        f"{mega['bytes'] / median['copy_seconds']:,.0f}",
        f"{share:.0%}",
        f"{mega['peak']:,.0f} MB",
        f"{2 * mega['largest'] + 500:,.0f} MB",
        certificate,
        f"{max(r['others'] for r in runs):.1f}",
    ]


def peer_table(data: Json) -> str:
    """The same clone by GrowLM and by the peer; both without a certificate."""

    def median(runs: list[Json], key: str) -> float:
        return statistics.median(run[key] for run in runs)

    ours, theirs = data["clone"], data["peer"]
    seconds = median(ours, "seconds"), median(theirs, "seconds")
    peaks = median(ours, "peak"), median(theirs, "peak")
    rows = [
        ["GrowLM", f"{seconds[0]:.1f}", f"{peaks[0] / 1e6:,.0f} MB"],
        ["HyperCloning through transformers", f"{seconds[1]:.1f}", f"{peaks[1] / 1e6:,.0f} MB"],
        ["ratio", f"{seconds[1] / seconds[0]:.1f}", f"{peaks[0] / peaks[1]:.2f}"],
    ]
    return table(["every width doubled", "seconds", "peak memory"], rows)


def memory_table(data: Json) -> str:
    """A state in memory, against numpy's copy."""
    header = [
        "in memory, fp32, one thread",
        "weights GB/s",
        "exp_avg GB/s",
        "exp_avg_sq GB/s",
        "copy GB/s",
        "share",
    ]
    rows = [
        [
            name,
            *(f"{r[k] / 1e9:.2f}" for k in ("weight", "exp_avg", "exp_avg_sq", "copy")),
            f"{r['share']:.0%}",
        ]
        for name, r in data.items()
    ]
    return table(header, rows)


if __name__ == "__main__":
    main()
