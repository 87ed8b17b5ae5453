"""bf16 training on one GPU: tokens/s, MFU and memory of about 1.3 billion parameters, random tokens.

    python benchmarks/gpu_train.py

The whole step of a run (growlm.train.loop.step) for both families. MFU is against the matmul peak that
growlm measures at the start of a run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import table, write_results
from peers.measure import WARMUP, Job
from peers.run_growlm import RandomMixture, recipe_of, session_of

from growlm.model.parameters import n_parameters
from growlm.plan.flops import flops_per_token
from growlm.train.loop import step
from growlm.train.session import DTYPES
from growlm.train.state import TrainState


def main() -> None:
    """Train both families and write the table."""
    parser = argparse.ArgumentParser(description="GrowLM on one GPU.")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=2048)
    args = parser.parse_args()
    rows, data = [], {}
    for family in ("flm", "llama"):
        job = Job(24, 2048, 16, 50304, args.seq_len, args.batch_size, args.steps, family)
        data[family] = result = train(job)
        cells = [f"{result['tokens_per_second']:,.0f}", f"{result['mfu']:.1%}"]
        cells += [f"{result['peak_tflops']:,.0f}", f"{result['memory'] / 1e9:.1f} GB"]
        rows.append([family, f"{result['parameters'] / 1e9:.2f} B", *cells])
    header = ["family", "parameters", "tokens/s", "MFU", "matmul TFLOP/s", "memory"]
    write_results("gpu_train", f"{torch.cuda.get_device_name()}\n\n{table(header, rows)}", data)


def train(job: Job) -> dict[str, float]:
    """Speed of the median step and peak memory."""
    recipe = recipe_of(job, job.variant)
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        session = session_of(recipe, RandomMixture(job), Path(folder), device)
        state = TrainState.fresh(recipe, device)
        state.model.compute_dtype = DTYPES[recipe.train.precision]
        seconds = []
        for _ in range(job.total_steps):
            torch.cuda.synchronize()
            started = time.perf_counter()
            step(session, state, started)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    speed = job.batch_size * job.seq_len / statistics.median(seconds[WARMUP:])
    flops = speed * flops_per_token(state.config, job.seq_len)
    return {
        "parameters": n_parameters(state.config),
        "tokens_per_second": speed,
        "mfu": flops / (session.peak_tflops * 1e12),
        "peak_tflops": session.peak_tflops,
        "memory": torch.cuda.max_memory_allocated(),
    }


if __name__ == "__main__":
    main()
