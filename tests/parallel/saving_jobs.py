"""What test_saving.py runs in the shared ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from growlm.checkpoint.store import CheckpointStore
from growlm.errors import GrowLMError
from growlm.model.init import init_rows
from growlm.model.parameters import parameter_table
from growlm.parallel.world import World, join
from growlm.plan.layout import Layout, pieces_of, written_by
from growlm.recipe.shape import ModelConfig
from growlm.testing import faults
from growlm.train.saver import Saver, Shard
from tests.checkpoint.helpers import FIELDS

SHAPE = {"d_model": 16, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "d_ff": 36, "n_layers": 3}
CONFIG = ModelConfig(family="qwen3", vocab_size=70, tied=True, **SHAPE)  # type: ignore[arg-type]
KINDS = {"model.safetensors": ("",), "optimizer.safetensors": ("exp_avg/", "exp_avg_sq/")}


def whole(seed: int) -> dict[str, dict[str, Tensor]]:
    """Every tensor of a checkpoint, by file."""
    table = parameter_table(CONFIG)
    return {
        file: {
            prefix + n: init_rows(p, seed, 0, p.shape[0]) + len(prefix)
            for prefix in prefixes
            for n, p in table.items()
        }
        for file, prefixes in KINDS.items()
    }


def shards(layout: Layout, rank: int, seed: int) -> dict[str, dict[str, Shard]]:
    """What a rank writes: views of what it holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.plan.layout.CUT_FROM", 64)  # matrices are cut, vectors are not
        held, written = pieces_of(CONFIG, layout, rank), written_by(CONFIG, layout, rank)
    state: dict[str, dict[str, Shard]] = {}
    for file, tensors in whole(seed).items():
        state[file] = {}
        for name, tensor in tensors.items():
            parameter = name.removeprefix("exp_avg_sq/").removeprefix("exp_avg/")
            if parameter in written:
                first, piece = held[parameter].start[0], written[parameter]
                mine = tensor[held[parameter].slices].clone()
                values = mine[piece.start[0] - first : piece.start[0] - first + piece.shape[0]]
                state[file][name] = Shard(piece, tuple(tensor.shape), values)
    return state


def save(folder: str, layout: dict[str, Any], steps: list[int]) -> list[Any]:
    """Save at every step, and change the weights at once; [path, bytes] of each save, in order."""
    with join("cpu") as world, Saver(CheckpointStore(Path(folder), keep=9), world) as saver:
        done = [_begin(saver, world, Layout(**layout), step) for step in steps]
        assert saver.pending
        return [[s.path.name, s.bytes] for s in [*done[1:], saver.finish()] if s]


def save_with_a_full_disk(folder: str, layout: dict[str, Any], full: int, point: str) -> list[Any]:
    """What this rank sees of a save that meets a full disk on one rank, and then of one that does not."""
    with join("cpu") as world, Saver(CheckpointStore(Path(folder), keep=9), world) as saver:
        _begin(saver, world, Layout(**layout), 1)
        saver.finish()
        faults._passages.clear()
        if world.rank == full:
            os.environ[faults.VARIABLE] = f"{point}:enospc"
        error: dict[str, Any] = {}
        try:
            _begin(saver, world, Layout(**layout), 2)
            saver.finish()
        except GrowLMError as raised:
            error = {"kind": type(raised).__name__, "code": raised.exit_code, "where": raised.where}
        os.environ.pop(faults.VARIABLE, None)
        world.barrier()  # rank 0 has removed what was written
        left = sorted(path.name for path in Path(folder).iterdir())
        world.barrier()
        assert not saver.pending
        _begin(saver, world, Layout(**layout), 3)
        return [error, left, saver.finish().path.name]


def save_twice(folder: Path, layout: Layout) -> None:
    """Two saves; for being killed in the second."""
    armed = os.environ.pop(faults.VARIABLE, None)
    with join("cpu") as world, Saver(CheckpointStore(folder, keep=9), world) as saver:
        _begin(saver, world, layout, 1)
        saver.finish()
        os.environ.update({} if armed is None else {faults.VARIABLE: armed})
        _begin(saver, world, layout, 2)
        saver.finish()


def save_apart(folders: list[str]) -> dict[str, str]:
    """The error when ranks do not share a folder."""
    try:
        with join("cpu") as world:
            folder = Path(folders[world.rank])
            with Saver(CheckpointStore(folder, keep=9), world) as saver:
                _begin(saver, world, Layout(dp=world.size), 1)
    except GrowLMError as error:
        return {"kind": type(error).__name__, "text": str(error)}
    return {}


def _begin(saver: Saver, world: World, layout: Layout, step: int) -> Any:
    state = shards(layout, world.rank, step)
    before = saver.begin(step, state, FIELDS)
    for tensors in state.values():
        for shard in tensors.values():
            shard.values.fill_(torch.nan)
    return before
