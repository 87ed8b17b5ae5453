"""Models from runs and checkpoints, for everything that does not train: sampling, growth by hand."""

from __future__ import annotations

from pathlib import Path

import torch

from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.data.tokenizer import Tokenizer
from growlm.errors import CheckpointError
from growlm.model.decoder import Decoder
from growlm.parallel.world import World
from growlm.train.state import TrainState, load_model
from growlm.train.stored import stored_recipe
from growlm.train.verify import latest_valid, problems_of


def find_checkpoint(path: Path, world: World | None = None) -> Checkpoint:
    """A verified checkpoint: `path` itself, or the newest valid one of a run or checkpoint folder.

    With a world all its ranks call it, and each hashes a share; what is there is as rank 0 sees it. Raises
    CheckpointError when there is none, or the named one is damaged.
    """
    world = world or World.alone(torch.device("cpu"))
    is_one, is_run = world.exchange([(path / MANIFEST).is_file(), (path / "checkpoints").is_dir()])[0]
    if is_one:
        problems = problems_of(path, world)
        with world.together():
            if problems:
                raise CheckpointError("the checkpoint is damaged", where=str(path), why="; ".join(problems))
            return Checkpoint(path, Manifest.load(path / MANIFEST))
    store = CheckpointStore(path / "checkpoints" if is_run else path, keep=2)
    found = latest_valid(store, world, lambda _: None)
    with world.together():
        if found is None:
            raise CheckpointError(
                "there is no checkpoint here", where=str(path), fix="name a run folder or a checkpoint in it"
            )
        return found


def masked_model(checkpoint: Checkpoint) -> Decoder:
    """The model of a checkpoint as it was in training: masked, if it was saved inside a ramp."""
    manifest, model = checkpoint.manifest, load_model(checkpoint)
    model.set_mask(TrainState.ramp_of(list(manifest.lineage), manifest.stage), manifest.mask)
    return model


def trained_context(checkpoint: Checkpoint, otherwise: int = 512) -> int:
    """Context length of the stage that a checkpoint is in; `otherwise` outside a run folder."""
    recipe, stage = stored_recipe(checkpoint.path.parent.parent), checkpoint.manifest.stage
    return recipe.stages[stage].seq_len if recipe and stage < len(recipe.stages) else otherwise


def find_tokenizer(checkpoint: Checkpoint, data: Path | None) -> Tokenizer:
    """The tokenizer of a checkpoint, from `data`, the checkpoint or the run's recipe; its hash must match.

    Raises CheckpointError when there is none or it is another one.
    """
    recipe = stored_recipe(checkpoint.path.parent.parent)
    own = checkpoint.path if (checkpoint.path / "tokenizer.json").is_file() else None
    folder = data or own or (Path(recipe.data.path) if recipe else None)
    if folder is None or not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            "the tokenizer of this checkpoint was not found",
            where=str(folder or checkpoint.path),
            fix="name the prepared data it was trained on: --data FOLDER",
        )
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.hash != checkpoint.manifest.tokenizer_hash:
        raise CheckpointError(
            "this tokenizer is not the one the checkpoint was trained with",
            where=str(folder / "tokenizer.json"),
            why="its ids mean other text",
            fix="name the prepared data it was trained on: --data FOLDER",
        )
    return tokenizer
