from collections.abc import Callable
from pathlib import Path

import pytest

BASE = """\
name = "tiny"
[model]
family = "llama"
head_dim = 8
vocab_size = 64
[data]
path = "data"
[data.mixture]
en = 1.0
zh = 1.0
[optim]
lr = 1e-3
[schedule]
warmup_steps = 2
[[stages]]
name = "a"
d_model = 16
n_heads = 2
n_kv_heads = 1
d_ff = 32
n_layers = 1
tokens = 1024
seq_len = 16
batch_size = 4
[[stages]]
name = "b"
d_model = 32
n_heads = 4
n_kv_heads = 2
d_ff = 64
n_layers = 2
tokens = 1024
seq_len = 16
batch_size = 4
micro_batch_size = 2
[stages.growth]
operator = "masked"
ramp_steps = 4
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write BASE with lines replaced (`line=text`, 1-based) or a whole text, and give its path."""

    def _write(text: str = BASE, name: str = "r.toml", **lines: str) -> Path:
        rows = text.split("\n")
        for number, row in lines.items():
            rows[int(number.removeprefix("line")) - 1] = row
        path = tmp_path / name
        path.write_text("\n".join(rows), encoding="utf-8")
        return path

    return _write
