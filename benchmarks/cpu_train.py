"""Train the same GPT with GrowLM and with its peers, in turn, on this machine.

    python benchmarks/cpu_train.py                      # both shapes, three rounds, peers as they come
    python benchmarks/cpu_train.py --shapes small --rounds 1 --tuned

Every figure is one process on the same batches; rounds alternate over the runners, medians are shown. MFU
is against a matmul probe between the steps: the ceiling of this machine at that moment, which on a shared
host changes twofold from one second to the next. Peers get virtual environments of their own in `--cache`,
made on the first run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import Others, table, wait_until_quiet, write_results

from growlm.plan.flops import flops_per_token
from growlm.recipe.shape import ModelConfig
from growlm.train.malloc import SETTINGS as TUNED_MALLOC

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
SHAPE_KEYS = ("n_layers", "d_model", "n_heads", "vocab_size", "seq_len", "batch_size")
SHAPES: dict[str, dict[str, int]] = {
    "small": dict(zip(SHAPE_KEYS, (8, 256, 4, 8192, 256, 16), strict=True)),
    "large": dict(zip(SHAPE_KEYS, (12, 512, 8, 16384, 512, 4), strict=True)),
}


@dataclass(frozen=True)
class Runner:
    """A script of `peers/`, what it needs installed (nothing: GrowLM's own interpreter), its variant."""

    name: str
    script: str
    packages: tuple[str, ...] = ()
    variant: str = ""
    tuned: bool = False


LITGPT = ("litgpt==0.5.13", "requests==2.34.2")
RUNNERS = [
    Runner("GrowLM", "run_growlm", tuned=True),
    Runner("HF Trainer bf16", "run_hf", ("transformers==5.23.0", "accelerate==1.15.0")),
    Runner("litgpt bf16-mixed, compiled", "run_litgpt", LITGPT),
    Runner("litgpt bf16-mixed, eager", "run_litgpt", LITGPT, "eager"),
    Runner("plain loop bf16", "run_plain", variant="bf16"),
    Runner("plain loop fp32", "run_plain", variant="fp32"),
]


def main() -> None:
    """Run, print and write the tables."""
    args = arguments()
    runners = [r for r in RUNNERS if not args.only or any(o in r.name for o in args.only)]
    if args.tuned:
        runners += [Runner(r.name, r.script, r.packages, r.variant, True) for r in runners if not r.tuned]
    pythons = {r: python_of(r, args.cache) for r in runners}
    text, data = "", {}
    for shape in args.shapes:
        runs: dict[Runner, list[dict[str, Any]]] = {r: [] for r in runners}
        for number in range(args.rounds):
            for r in runners:
                job = SHAPES[shape] | {"steps": args.steps}
                runs[r].append(measure_in_quiet(r, pythons[r], job, args.max_busy))
                seconds = statistics.median(runs[r][-1]["step_seconds"])
                note = "tuned malloc" if r.tuned else ""
                print(f"{shape} round {number + 1} {r.name} {note}: {seconds:.3f} s/step", file=sys.stderr)
        text += report(shape, runs)
        data[shape] = [
            {"runner": r.name, "variant": r.variant, "tuned_malloc": r.tuned, "runs": runs[r]}
            for r in runners
        ]
    write_results("cpu_train_tuned" if args.tuned else "cpu_train", text, data)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="GrowLM and its peers on the same GPT.")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a run, after three of warm-up")
    parser.add_argument("--only", nargs="+", help="runners whose names contain one of these")
    parser.add_argument("--tuned", action="store_true", help="peers also with GrowLM's malloc settings")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "growlm-bench")
    parser.add_argument("--max-busy", type=float, default=0.2, help="wait until fewer cores are in use")
    return parser.parse_args()


def python_of(runner: Runner, cache: Path) -> str:
    """The interpreter that runs it; its environment is made on first use."""
    if not runner.packages:
        return sys.executable
    folder = cache / runner.script
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"installing {' '.join(runner.packages)} in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for packages in ([TORCH], [TORCH, "numpy", *runner.packages]):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "ready").touch()
    return str(python)


def measure_in_quiet(runner: Runner, python: str, job: dict[str, int], max_busy: float) -> dict[str, Any]:
    """One run; again, a few times, if the machine turned out not to be quiet."""
    result: dict[str, Any] = {}
    attempts = 5
    while True:
        wait_until_quiet(max_busy)
        with Others() as others:
            result = measure(runner, python, job)
        result["others_cores"] = others.cores
        attempts -= 1
        if others.cores < max_busy or not attempts:
            return result


def measure(runner: Runner, python: str, shape: dict[str, int]) -> dict[str, Any]:
    """One run in a process of its own; what it reported."""
    job = json.dumps({**shape, "variant": runner.variant})
    env = {k: v for k, v in os.environ.items() if k not in TUNED_MALLOC}
    env |= TUNED_MALLOC if runner.tuned else {}
    env["PYTHONPATH"] = str(HERE.parent) if runner.script == "run_growlm" else ""
    command = [python, "-m", f"peers.{runner.script}", job]
    done = subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{runner.name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def report(shape: str, runs: dict[Runner, list[dict[str, Any]]]) -> str:
    """The table of one shape. A run's speed is that of its median step; medians are over the runs."""
    figures = {r: figures_of(SHAPES[shape], rs) for r, rs in runs.items()}
    ours = next((f for r, f in figures.items() if r.name == "GrowLM"), None)
    rows = []
    for r, f in figures.items():
        against = {key: f"{ours[key] / f[key]:.2f} x" if ours else "" for key in f}
        cells = [f"{f['speed']:,.0f}", f"{f['slowest']:,.0f}-{f['fastest']:,.0f}", against["speed"]]
        cells += [f"{f['mfu']:.1%}", f"{f['probe']:,.0f}", against["mfu"]]
        cells += [f"{f['rss'] / 1e6:,.0f} MB", against["rss"], f"{f['others']:.1f}"]
        rows.append([r.name, "tuned" if r.tuned else "default", *cells])
    header = ["runner", "malloc", "tokens/s", "range", "GrowLM is"]
    header += ["MFU", "probe GFLOP/s", "GrowLM's is", "peak memory", "GrowLM's is", "others"]
    counts = ", ".join(f"{k} {v}" for k, v in SHAPES[shape].items())
    return f"## {shape}\n\n{counts}\n\n{table(header, rows)}\n"


def figures_of(s: dict[str, int], runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the runs of one runner; MFU is each step's, against the probes before and after it."""
    tokens = s["batch_size"] * s["seq_len"]
    config = ModelConfig(
        family="flm",
        n_layers=s["n_layers"],
        d_model=s["d_model"],
        n_heads=s["n_heads"],
        n_kv_heads=s["n_heads"],
        head_dim=s["d_model"] // s["n_heads"],
        d_ff=4 * s["d_model"],
        vocab_size=s["vocab_size"],
    )
    step_gflop = tokens * flops_per_token(config, s["seq_len"]) / 1e9
    speeds = [tokens / statistics.median(run["step_seconds"]) for run in runs]
    mfus = [
        step_gflop / seconds / ((before + after) / 2)
        for run in runs
        for seconds, (before, after) in zip(run["step_seconds"], pairwise(run["probe_gflops"]), strict=True)
    ]
    return {
        "speed": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "mfu": statistics.median(mfus),
        "probe": statistics.median(p for run in runs for p in run["probe_gflops"]),
        "rss": statistics.median(run["peak_rss"] for run in runs),
        "others": max(run["others_cores"] for run in runs),
    }


if __name__ == "__main__":
    main()
