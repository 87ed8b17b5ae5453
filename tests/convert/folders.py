"""Small Hugging Face folders written without transformers, whole or in shards, and ways to break them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from growlm.convert.dialects import DIALECTS
from growlm.convert.write import write_folder
from growlm.growth.weights import MemoryWeights
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig
from tests.model.tiny import State, config, trained

FAMILY = {"llama": "llama", "qwen3": "qwen3", "gpt2": "gpt2", "gpt_neox": "neox", "opt": "opt"}
"""The family of each dialect that the tests write."""


def model_of(dialect: str, **changes: Any) -> ModelConfig:
    """A small model that the dialect can say."""
    fields: dict[str, Any] = {"tied": dialect in ("gpt2", "opt", "qwen3"), "max_positions": 64}
    if dialect in ("gpt2", "gpt_neox", "opt"):
        fields |= {"n_kv_heads": 4}
    if dialect == "gpt_neox":
        fields |= {"rotary_share": 0.5}
    return config(FAMILY[dialect], **fields | changes)


def make_folder(
    path: Path,
    dialect: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = 1 << 30,
    **changes: Any,
) -> State:
    """Write a folder of random weights; the weights under GrowLM's names, as they are stored."""
    c = model_of(dialect, **changes)
    state = {name: tensor.to(dtype) for name, tensor in trained(c).items()}
    write_folder(
        MemoryWeights(c, state),
        DIALECTS[dialect],
        path,
        dtype=dtype,
        shard_bytes=shard_bytes,
        source={},
        keys={"torch_dtype": str(dtype).removeprefix("torch.")},
        files={"merges.txt": b"a b\n", "generation_config.json": b'{"max_length": 20}'},
    )
    assert state.keys() == parameter_table(c).keys()
    return state


def edit_config(folder: Path, **keys: Any) -> None:
    """Change config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def edit_tensors(folder: Path, change: Any, file: str = "model.safetensors") -> None:
    """Let `change` work on the tensors of a file, as a dictionary."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / file)


def edit_index(folder: Path, change: Any) -> None:
    """Let `change` work on the weight map of the index."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))
