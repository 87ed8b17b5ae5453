"""What every runner shares: the job it gets, the batches, the clock, the matmul probe. Needs only torch.

A runner is a process: a JSON job as its argument, one JSON line with the measurement as its last output.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

WARMUP = 3


@dataclass(frozen=True)
class Job:
    """The model, the batch, and how many steps are timed after the warm-up."""

    n_layers: int
    d_model: int
    n_heads: int
    vocab_size: int
    seq_len: int
    batch_size: int
    steps: int
    variant: str = ""

    @property
    def total_steps(self) -> int:
        """Steps to run, warm-up included."""
        return WARMUP + self.steps


def job() -> Job:
    """The job of this process."""
    torch.manual_seed(0)
    return Job(**json.loads(sys.argv[1]))


def random_tokens(j: Job, step: int) -> Tensor:
    """Random ids (B, T + 1) of a step, int64: the inputs and, one later, the targets."""
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, j.vocab_size, (j.batch_size, j.seq_len + 1), generator=generator)


def probe(size: int = 1024, repeats: int = 5) -> float:
    """Median GFLOP/s of a square bf16 matmul: how fast this machine happens to be right now."""
    a = torch.randn(size, size).bfloat16()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds) / 1e9


@dataclass
class Clock:
    """Call `tick` at the end of every step: it notes the time, and probes before the next step begins."""

    ends: list[float] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)

    def tick(self, loss: float | None = None) -> None:
        """A step has ended, with this loss if it is known."""
        self.ends.append(time.perf_counter())
        self.losses.append(loss)
        self.probes.append(probe())
        self.begins.append(time.perf_counter())

    def report(self, j: Job) -> None:
        """Print the measurement: the steps after the warm-up, and the probes before and after each."""
        seconds = [b - a for a, b in zip(self.begins, self.ends[1:], strict=False)][WARMUP - 1 :]
        assert len(seconds) == j.steps
        result = {
            "step_seconds": seconds,
            "probe_gflops": self.probes[WARMUP - 1 :],
            "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "last_loss": self.losses[-1],
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        print(json.dumps(result), flush=True)
