"""A model that is larger than the memory allowed for it grows all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from growlm.convert.dialects import DIALECTS
from growlm.convert.write import write_folder
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

SMALL = ModelConfig(
    family="llama", d_model=512, n_heads=8, n_kv_heads=8, head_dim=64, d_ff=2048, n_layers=12, vocab_size=4096
)

COMMAND = """
import sys
from growlm.cli.main import app
sys.argv = ["growlm", "grow", *sys.argv[1:]]
try:
    app()
finally:
    status = open("/proc/self/status").read()
    print("peak", next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""


class Zeros:
    """Weights that take no memory."""

    config = SMALL

    def dtype(self, name: str) -> torch.dtype:
        assert name
        return torch.bfloat16

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        rows, *rest = parameter_table(SMALL)[name].shape
        return torch.zeros((rows if stop is None else stop) - start, *rest, dtype=torch.bfloat16)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("certificate", ["sampled", pytest.param("streaming", marks=pytest.mark.slow)])
def test_peak_memory_is_half_a_gigabyte_and_twice_the_largest_tensor(
    certificate: str, tmp_path: Path
) -> None:
    """The grown model alone has 0.4 GB; the streaming certificate may hold two of its blocks in fp32."""
    write_folder(
        Zeros(), DIALECTS["llama"], tmp_path / "small",
        dtype=torch.bfloat16, shard_bytes=10**10, source={}, keys={}, files={},
    )  # fmt: skip
    call = ["--to", "width=2x", "--operator", "clone", "--certificate", certificate]
    command = [sys.executable, "-c", COMMAND, tmp_path / "small", *call, "--out", tmp_path / "large"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = 1024 * int(done.stdout.split("peak ")[1])
    size = sum(file.stat().st_size for file in (tmp_path / "large").glob("*.safetensors"))
    assert size > 400e6
    large = parameter_table(SMALL.with_(d_model=1024, n_heads=16, n_kv_heads=16, d_ff=4096))
    block = sum(p.numel for p in large.values() if p.layer == 0)
    held = 2 * 4 * block if certificate == "streaming" else 0
    assert peak <= 500e6 + 2 * 2 * max(p.numel for p in large.values()) + held
