"""What a run folder remembers for going on and for all that looks at it: recipe, data, companions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from growlm.checkpoint.disk import disk_errors, write_atomic
from growlm.convert.companions import companions_of
from growlm.data.card import CARD_JSON, facts, read_card
from growlm.data.dataset import TokenDataset
from growlm.data.manifest import Manifest
from growlm.errors import CheckpointError
from growlm.recipe.schema import Recipe

RECIPE_NAME = "recipe.json"
DATA_CARD, DATA_MANIFEST = "data-card.json", "data-manifest.json"
COMPANIONS = "companions"
"""The folder of a run with the small files that came with the weights that it started from."""


def stored_recipe(folder: Path) -> Recipe | None:
    """The recipe that a run folder remembers; None if it is no run folder. Raises CheckpointError."""
    path = folder / RECIPE_NAME
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "the recipe that a run was started with cannot be read",
            where=str(path),
            why=error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error),
            fix="bring it back, or remove it to go on with the recipe that is given, unchecked",
        ) from error


def store_data(run: Path, dataset: TokenDataset, recipe: Recipe) -> None:
    """Keep the card of the data with the mixtures of the recipe, and the manifest. Raises DiskError."""
    card = read_card(dataset.path / CARD_JSON)
    if card is None or card["fingerprint"] != dataset.fingerprint:
        card = facts(dataset.manifest, {})
    card["mixture"] = {stage.name: recipe.mixture_of(i) for i, stage in enumerate(recipe.stages)}
    write_atomic(run / DATA_CARD, json.dumps(card, ensure_ascii=False, indent=1).encode())
    write_atomic(run / DATA_MANIFEST, dataset.manifest.to_json().encode())


def stored_manifest(run: Path, fingerprint: str) -> Manifest | None:
    """The manifest of the data with a fingerprint, if the run folder remembers that."""
    try:
        manifest = Manifest.model_validate_json((run / DATA_MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None
    return manifest if manifest.fingerprint == fingerprint else None


def stored_companions(checkpoint: Path) -> dict[str, bytes]:
    """The companions of a checkpoint: its own, or else those of the run that it is in."""
    return companions_of(checkpoint) or companions_of(checkpoint.parent.parent / COMPANIONS)


def store_companions(run: Path, files: Mapping[str, bytes]) -> None:
    """Keep companions in a run folder, for its exports. Raises DiskError."""
    if not files:
        return
    with disk_errors(run):
        (run / COMPANIONS).mkdir(exist_ok=True)
    for name, data in files.items():
        write_atomic(run / COMPANIONS / name, data)
