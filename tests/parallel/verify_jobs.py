"""What test_verify.py runs in the shared ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from growlm.checkpoint.disk import hash_file
from growlm.checkpoint.store import CheckpointStore
from growlm.errors import GrowLMError
from growlm.parallel.world import join
from growlm.recipe.load import load_recipe
from growlm.train.initial import find_initial, hash_folder
from growlm.train.restore import find_checkpoint
from growlm.train.verify import latest_valid


def newest(folder: str, trusted: str = "") -> dict[str, Any]:
    """What this rank finds, reports, fails with and hashes; rank 0 has verified `trusted` before."""
    told: dict[str, Any] = {"lines": [], "hashed": []}
    store = CheckpointStore(Path(folder), keep=2)

    def recorded(path: Path) -> str:
        told["hashed"].append(f"{path.parent.name}/{path.name}")
        return hash_file(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.checkpoint.store.hash_file", recorded)
        try:
            with join("cpu") as world:
                if trusted and world.main:
                    store.trust(store.folder / trusted)
                found = latest_valid(store, world, told["lines"].append)
                told["found"] = found and found.path.name
                told["trusts"] = found and store.trusts(found.path)
        except GrowLMError as error:
            told |= {"kind": type(error).__name__, "text": str(error)}
    return told


def identity(folder: str) -> list[str]:
    """The hash of a Hugging Face folder by all ranks, and the checkpoint that is found beside it."""
    with join("cpu") as world:
        found = find_checkpoint(Path(folder).parent, world)
        return [hash_folder(Path(folder), world), found.path.name]


def start_from(inits: list[str]) -> dict[str, str]:
    """The error of a rank that starts from its own choice of weights."""
    try:
        with join("cpu") as world:
            recipe = load_recipe("laptop", [f"init={inits[world.rank]}"])
            find_initial(recipe, [], world)
    except GrowLMError as error:
        return {"kind": type(error).__name__, "text": str(error)}
    return {}
