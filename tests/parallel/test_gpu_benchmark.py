"""The GPU benchmark runs from end to end on a CPU, in small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lines(*only: str) -> list[str]:
    """The rows of the table that it prints for what is chosen."""
    script = ROOT / "benchmarks" / "gpu_train.py"
    options = ["--device", "cpu", "--tiny", "--rounds", "1", "--steps", "1", "--only", *only]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(("| llama", "| flm", "| slice"))]


def test_eager() -> None:
    """Four models in three ways."""
    found = lines("eager")
    assert len(found) == 12
    assert all("out of memory" not in line for line in found)


@pytest.mark.slow
def test_compiled() -> None:
    assert len(lines("compiled, selective", "slice of 51B")) == 1
