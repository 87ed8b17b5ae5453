"""What test_growth.py runs in the shared ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.checkpoint.format import hash_tensor
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.errors import GrowLMError
from growlm.growth import chunks
from growlm.growth.apply import grow_rows
from growlm.parallel.world import World, join
from growlm.plan.layout import Layout
from growlm.recipe.schema import GrowthTable
from growlm.testing import faults
from growlm.train.grow import grow_checkpoint
from growlm.train.saver import Saver
from tests.checkpoint.helpers import FIELDS
from tests.parallel.saving_jobs import CONFIG, shards

BATCH = (torch.arange(64).view(2, 32), torch.arange(1, 65).view(2, 32))
FACTS = {name: FIELDS[name] for name in ("recipe_hash", "data_fingerprint", "tokenizer_hash", "environment")}
START = FIELDS | {"model": CONFIG.to_dict(), "mask": 1.0, "births": {}, "lineage": []}


def write_source(folder: str) -> None:
    """A checkpoint with moments, written by these ranks."""
    with join("cpu") as world, Saver(CheckpointStore(Path(folder), keep=9), world) as saver:
        saver.begin(7, shards(Layout(dp=world.size), world.rank, 7), START)
        saver.finish()


def grow(source: str, folder: str, sizes: dict[str, int], settings: dict[str, Any]) -> dict[str, Any]:
    """What this rank learns of a growth, and the hash of every whole tensor."""
    with join("cpu") as world:
        path, entry = _grow(source, folder, sizes, settings, world)
        checkpoint = _newest(folder)
        assert checkpoint.path == path
        assert checkpoint.manifest.lineage == [entry]
        with checkpoint.open() as tensors:
            hashes = {name: hash_tensor(tensors.read(name)) for name in checkpoint.manifest.tensors}
        sizes = {name: file.bytes for name, file in checkpoint.manifest.files.items()}
        births = checkpoint.manifest.births
        return {"entry": entry, "hashes": hashes, "births": births, "files": sizes, "path": path.name}


def fail(
    source: str, folder: str, sizes: dict[str, int], settings: dict[str, Any], rank: int, how: str
) -> list[Any]:
    """The error that this rank sees when `how` goes wrong on a rank, and what is left in the folder."""
    error = {}
    with pytest.MonkeyPatch.context() as patch, join("cpu") as world:
        patch.setattr(chunks, "CHUNK_BYTES", 300)
        faults._passages.clear()
        if world.rank == rank and how == "wrong rows":
            patch.setattr(chunks, "grow_rows", lambda *args: grow_rows(*args) * 1.01)
        elif world.rank == rank and how:
            patch.setitem(os.environ, faults.VARIABLE, how)
        try:
            _grow(source, folder, sizes, settings, world)
        except GrowLMError as raised:
            error = {"kind": type(raised).__name__, "code": raised.exit_code, "text": str(raised)}
        world.barrier()  # rank 0 has removed what was written
        left = [path.name for path in Path(folder).glob("*")] + [p.name for p in Path(folder).glob(".*")]
        return [error, left]


def grow_or_die(source: Path, folder: Path, sizes: dict[str, int], settings: dict[str, Any]) -> None:
    with join("cpu") as world:
        _grow(str(source), str(folder), sizes, settings, world)


def _newest(folder: str) -> Checkpoint:
    found = CheckpointStore(Path(folder), keep=9).latest_valid(pytest.fail)
    assert found is not None
    return found


def _grow(
    source: str, folder: str, sizes: dict[str, int], settings: dict[str, Any], world: World
) -> tuple[Path, dict[str, Any]]:
    batches = iter([BATCH] * 3) if world.main and settings.get("operator") == "ligo" else None
    return grow_checkpoint(
        _newest(source),
        CONFIG.with_(**sizes),
        GrowthTable.model_validate(settings),
        CheckpointStore(Path(folder), keep=9),
        seed=5,
        batch=BATCH,
        batches=batches,
        facts=FACTS,
        world=world,
    )
