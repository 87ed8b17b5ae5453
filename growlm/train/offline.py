"""Growth by hand: a run, a checkpoint or a Hugging Face folder into a new folder of the same kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import CheckpointStore
from growlm.convert.folder import FolderWeights, is_folder_of_weights
from growlm.convert.grow import grow_folder
from growlm.convert.shards import check_new
from growlm.data.dataset import TokenDataset
from growlm.data.tokenizer import Tokenizer
from growlm.errors import CheckpointError
from growlm.growth.choose import Batch, CertificateKind
from growlm.growth.operators import Growth, plan_growth
from growlm.growth.prepare import prepare_growth
from growlm.plan.target import growth_to
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.recipe.sizes import growth_table
from growlm.train.grow import grow_checkpoint_apart
from growlm.train.restore import find_checkpoint

SEQUENCES, LENGTH = 4, 128
"""Sequences of every source, and their tokens, that a certificate runs on."""


def grow_offline(
    source: Path,
    to: str,
    settings: Mapping[str, Any],
    out: Path,
    *,
    data: Path | None,
    seed: int,
    certificate: CertificateKind,
    shard_bytes: int,
) -> dict[str, Any]:
    """Grow what is at `source` to `to` (see `growth_to`) in the new folder `out`; the certified entry.

    The certificate runs on validation text of `data`, or on random tokens. Raises RecipeError,
    CheckpointError, DataError, GrowthError or DiskError; then there is no `out`. The same call continues
    after a kill or a full disk.
    """
    check_new(out)
    writing: Any = {"certificate": certificate, "shard_bytes": shard_bytes}
    if is_folder_of_weights(source):
        with FolderWeights(source) as old:
            target, table = growth_to(to, old.config, settings)
            texts = _texts(old.config, data, _tokenizer_hash(source), seed)
            growth = prepare_growth(old, target, table, seed=seed, tokens=texts[0][0], batches=texts[1])
            return grow_folder(old, growth, out, batch=texts[0], **writing)
    checkpoint = find_checkpoint(source)
    config = ModelConfig(**checkpoint.manifest.model)  # type: ignore[arg-type]
    target, table = growth_to(to, config, settings)
    batch, batches = _texts(config, data, checkpoint.manifest.tokenizer_hash, seed)
    return grow_checkpoint_apart(
        checkpoint, target, table, out, seed=seed, batch=batch, batches=batches, **writing
    )


def plans_of(
    source: Path, to: str, settings: Mapping[str, Any], seed: int
) -> Iterator[tuple[Growth, torch.dtype, bool]]:
    """The growth of what is at `source`, or every growth of the recipe `source`, without reading a tensor.

    With each comes the dtype of its weights and whether it has an optimizer state. What is chosen by the
    weights (depth `distance`) is planned as if all were alike. Raises what `grow_offline` does.
    """
    if source.suffix == ".toml":
        recipe = load_recipe(source)
        old = recipe.model_config_of(0)
        for index in range(1, len(recipe.stages)):
            table = growth_table(recipe.growth_of(index).model_dump(exclude_unset=True) | dict(settings))
            growth = _unmeasured(old, recipe.model_config_of(index), table, recipe.seed + index)
            yield growth, torch.float32, True
            old = growth.new
    elif is_folder_of_weights(source):
        with FolderWeights(source) as weights:
            target, table = growth_to(to, weights.config, settings)
            yield _unmeasured(weights.config, target, table, seed), weights.dtype("embedding.weight"), False
    else:
        old = _shape_of_checkpoint(source)
        target, table = growth_to(to, old, settings)
        yield _unmeasured(old, target, table, seed), torch.float32, True


def _unmeasured(old: ModelConfig, target: ModelConfig, table: GrowthTable, seed: int) -> Growth:
    return plan_growth(old, target, table, seed=seed, distances=[0.0] * old.n_layers)


def _shape_of_checkpoint(path: Path) -> ModelConfig:
    """Of a checkpoint, or the newest of a folder, as its manifest says. Raises CheckpointError."""
    if not (path / MANIFEST).is_file():
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        path = next((entry.path for entry in CheckpointStore(folder, keep=2).checkpoints()), path)
    return ModelConfig(**Manifest.load(path / MANIFEST).model)  # type: ignore[arg-type]


def _tokenizer_hash(folder: Path) -> str:
    file = folder / "tokenizer.json"
    return Tokenizer.load(file).hash if file.is_file() else ""


def _texts(
    config: ModelConfig, data: Path | None, tokenizer_hash: str, seed: int
) -> tuple[Batch, Iterator[Batch] | None]:
    """Held-out text for the certificate, and endless training text; random tokens and None without data.

    Raises CheckpointError if the data was prepared with another tokenizer than the model's.
    """
    length = min(LENGTH, config.max_positions or LENGTH)
    rng = np.random.default_rng(seed)
    if data is None:
        return _batch(rng.integers(0, config.vocab_size, (SEQUENCES, length + 1))), None
    dataset = TokenDataset.open(data)
    if tokenizer_hash not in ("", dataset.tokenizer_hash) or dataset.vocab_size > config.vocab_size:
        raise CheckpointError(
            "this data was prepared with another tokenizer than the model's",
            where=str(data),
            why="its ids mean other text",
            fix="prepare it again: growlm data prepare --tokenizer tokenizer.json",
        )
    pairs = [dataset.validation(s, length, SEQUENCES * length) for s in dataset.sources]
    x, y = (torch.cat([torch.from_numpy(pair[i]) for pair in pairs]) for i in (0, 1))
    return (x, y), _training(dataset, length, rng)


def _training(dataset: TokenDataset, length: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Batches from random places of the training text, a source in turn."""
    for source in cycle(dataset.sources):
        starts = rng.integers(0, max(1, dataset.tokens(source, "train") - length), 2 * SEQUENCES)
        rows = [dataset.read(source, "train", int(start), length + 1) for start in starts]
        yield _batch(np.stack(rows))


def _batch(ids: NDArray[Any]) -> Batch:
    tokens = torch.from_numpy(ids.astype(np.int64))
    return tokens[:, :-1], tokens[:, 1:]
