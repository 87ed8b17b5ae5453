"""Models from runs and checkpoints, for everything that does not train: sampling, growth by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.data.dataset import TokenDataset
from growlm.data.tokenizer import Tokenizer
from growlm.errors import CheckpointError, RecipeError
from growlm.model.decoder import Decoder
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.train.grow import Batch, grow_checkpoint
from growlm.train.state import TrainState, load_model
from growlm.train.stored import stored_recipe


def find_checkpoint(path: Path) -> Checkpoint:
    """A verified checkpoint: `path` itself, or the newest valid one of a run or checkpoint folder.

    Raises CheckpointError when there is none, or the named one is damaged.
    """
    if (path / MANIFEST).is_file():
        problems = CheckpointStore.verify(path)
        if problems:
            raise CheckpointError("the checkpoint is damaged", where=str(path), why="; ".join(problems))
        return Checkpoint(path, Manifest.load(path / MANIFEST))
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = CheckpointStore(folder, keep=2).latest_valid(lambda _: None)
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
    """The tokenizer a checkpoint was trained with, from `data` or the run's recipe; its hash must match.

    Raises CheckpointError when there is none or it is another one.
    """
    recipe = stored_recipe(checkpoint.path.parent.parent)
    folder = data or (Path(recipe.data.path) if recipe else None)
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


def grow_offline(
    source: Path, out: Path, sizes: dict[str, int], settings: dict[str, Any], *, data: Path | None, seed: int
) -> dict[str, Any]:
    """Grow the checkpoint at `source` to `sizes` into the folder `out`; its lineage entry with its `path`.

    The certificate runs on validation text of `data`, or on random tokens. Raises RecipeError for
    settings that do not exist, CheckpointError, GrowthError or DiskError; then `out` holds nothing new.
    """
    try:
        table = GrowthTable.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        name, value = first["loc"][0], first["input"]
        raise RecipeError(f"{name} = {value!r}: {first['msg'].lower()}", where=f"--{name}") from None
    _refuse_used(out)
    checkpoint = find_checkpoint(source)
    old = ModelConfig(**checkpoint.manifest.model)  # type: ignore[arg-type]
    if "n_heads" in sizes and "n_kv_heads" not in sizes and old.queries_per_kv == 1:
        sizes = sizes | {"n_kv_heads": sizes["n_heads"]}
    target = old.with_(**sizes)
    if target.n_heads % target.n_kv_heads:
        raise RecipeError(
            f"{target.n_heads} query heads cannot share {target.n_kv_heads} key/value heads",
            where="--n-heads, --n-kv-heads",
            fix=f"make n_heads a multiple of {target.n_kv_heads}",
        )
    if target == old:
        raise RecipeError(
            "nothing to grow: no size is larger", where=str(checkpoint.path), fix="e.g. --n-layers 12"
        )
    manifest = checkpoint.manifest
    facts = {
        k: getattr(manifest, k) for k in ("recipe_hash", "data_fingerprint", "tokenizer_hash", "environment")
    }
    store = CheckpointStore(out, keep=2)
    path, entry = grow_checkpoint(
        checkpoint, target, table, store, seed=seed, batch=_batch(checkpoint, old, data, seed), facts=facts
    )
    return entry | {"path": str(path)}


def _refuse_used(out: Path) -> None:
    """A run's own folder belongs to its run: a checkpoint grown by hand gets a folder of its own."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError("the output is not an empty folder", where=str(out), fix="name a new folder")


def _batch(
    checkpoint: Checkpoint,
    config: ModelConfig,
    data: Path | None,
    seed: int,
    sequences: int = 4,
    length: int = 128,
) -> Batch:
    """Held-out text, or random tokens, (B, T) twice."""
    if data is not None:
        find_tokenizer(checkpoint, data)
        dataset = TokenDataset.open(data)
        pairs = [dataset.validation(s, length, sequences * length) for s in dataset.sources]
        x, y = (torch.cat([torch.from_numpy(p[i]) for p in pairs]) for i in (0, 1))
        return x, y
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, config.vocab_size, (sequences, length + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]
