"""Growth by hand: a run, a checkpoint or a Hugging Face folder into a new folder of the same kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.checkpoint.weights import StoredWeights
from growlm.convert.folder import FolderWeights, is_folder_of_weights
from growlm.convert.fuse import FusedFolder, Parent
from growlm.convert.grow import grow_folder
from growlm.convert.shards import check_new
from growlm.data.dataset import TokenDataset
from growlm.data.manifest import MARK
from growlm.data.progress import QUIET, Progress
from growlm.data.tokenizer import Tokenizer
from growlm.errors import CheckpointError
from growlm.growth.choose import Batch, CertificateKind
from growlm.growth.fusion import fused_config
from growlm.growth.operators import Growth, plan_growth
from growlm.growth.prepare import prepare_growth
from growlm.plan.target import growth_to
from growlm.recipe.load import load_recipe
from growlm.recipe.operators import DEFAULTS
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.recipe.sizes import growth_table
from growlm.train.grow import grow_checkpoint_apart, refuse_inside_a_ramp
from growlm.train.restore import find_checkpoint

SEQUENCES, LENGTH = 4, 128
"""Sequences of every source, and their tokens, that a certificate runs on."""


def grow_offline(
    source: Path,
    to: str,
    settings: Mapping[str, Any],
    out: Path,
    *,
    fuse: Sequence[Path] = (),
    data: Path | None,
    seed: int,
    certificate: CertificateKind,
    shard_bytes: int,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Grow what is at `source` to `to` (see `growth_to`) in the new folder `out`; the certified entry.

    With `fuse`, other models are laid beside it first; then `to` may be empty. The certificate runs on
    validation text of `data`, or on random tokens. Raises RecipeError, CheckpointError, DataError,
    GrowthError or DiskError; then there is no `out`. The same call continues after a kill or a full disk.
    """
    check_new(out)
    writing: Any = {"certificate": certificate, "shard_bytes": shard_bytes, "progress": progress}
    with ExitStack() as stack:
        others = [_parent(path, stack) for path in fuse]
        if is_folder_of_weights(source):
            own, tokenizer = stack.enter_context(FolderWeights(source)), _tokenizer_hash(source)
            _refuse_other_tokenizers(tokenizer, others)
            old = FusedFolder(own, others) if others else own
            target, table = _target(to, old.config, settings, fused=bool(others))
            batch, batches = _texts(old.config, data, tokenizer, seed)
            growth = prepare_growth(
                old, target, table, seed=seed, tokens=batch[0], batches=batches, has_state=False
            )
            return grow_folder(old, growth, out, batch=batch, **writing)
        checkpoint = _checkpoint(source)
        tokenizer = checkpoint.manifest.tokenizer_hash
        _refuse_other_tokenizers(tokenizer, others)
        config = ModelConfig(**checkpoint.manifest.model)  # type: ignore[arg-type]
        if others:
            config = fused_config([config, *(other.weights.config for other in others)])
        target, table = _target(to, config, settings, fused=bool(others))
        batch, batches = _texts(config, data, tokenizer, seed)
        return grow_checkpoint_apart(
            checkpoint,
            target,
            table,
            out,
            seed=seed,
            batch=batch,
            batches=batches,
            others=others,
            **writing,
        )


def _target(
    to: str, old: ModelConfig, settings: Mapping[str, Any], *, fused: bool
) -> tuple[ModelConfig, GrowthTable]:
    """As `growth_to`; a model that was fused need not grow any more."""
    return (
        (old, growth_table(DEFAULTS | dict(settings))) if fused and not to else growth_to(to, old, settings)
    )


def _checkpoint(path: Path) -> Checkpoint:
    """As `find_checkpoint`, which knows nothing of Hugging Face folders. Raises CheckpointError."""
    try:
        return find_checkpoint(path)
    except CheckpointError as error:
        if error.fix:
            error.fix += ", or a Hugging Face folder (config.json with safetensors)"
        raise


def _parent(path: Path, stack: ExitStack) -> Parent:
    """A model to fuse, open until the stack is closed. Raises CheckpointError or GrowthError."""
    if is_folder_of_weights(path):
        folder = stack.enter_context(FolderWeights(path))
        return Parent(folder, folder.files, _tokenizer_hash(path))
    checkpoint = _checkpoint(path)
    refuse_inside_a_ramp(checkpoint)
    weights = stack.enter_context(StoredWeights.of(checkpoint))
    files = [checkpoint.path / name for name in checkpoint.manifest.files]
    return Parent(weights, files, checkpoint.manifest.tokenizer_hash)


def _refuse_other_tokenizers(own: str, others: Sequence[Parent]) -> None:
    if len({own, *(other.tokenizer_hash for other in others)} - {""}) > 1:
        raise CheckpointError(
            "these models have different tokenizers",
            where="--fuse",
            why="an id is another text for each of them",
            fix="fuse models that were trained with one tokenizer",
        )


def plans_of(
    source: Path, to: str, settings: Mapping[str, Any], seed: int, fuse: Sequence[Path] = ()
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
            growth = _unmeasured(old, recipe.model_config_of(index), table, recipe.seed + index, True)
            yield growth, torch.float32, True
            old = growth.new
        return
    shapes = [_stored_shape(path) for path in (source, *fuse)]
    old, dtype = (fused_config([config for config, _ in shapes]) if fuse else shapes[0][0]), shapes[0][1]
    target, table = _target(to, old, settings, fused=bool(fuse))
    has_state = not is_folder_of_weights(source) and not fuse
    yield _unmeasured(old, target, table, seed, has_state), dtype, has_state


def _unmeasured(
    old: ModelConfig, target: ModelConfig, table: GrowthTable, seed: int, has_state: bool
) -> Growth:
    distances = [0.0] * old.n_layers
    return plan_growth(old, target, table, seed=seed, distances=distances, has_state=has_state)


def _stored_shape(path: Path) -> tuple[ModelConfig, torch.dtype]:
    """Of a Hugging Face folder, a checkpoint, or the newest one of a run. Raises CheckpointError."""
    if is_folder_of_weights(path):
        with FolderWeights(path) as weights:
            return weights.config, weights.dtype("embedding.weight")
    if not (path / MANIFEST).is_file():
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        newest = next(iter(CheckpointStore(folder, keep=2).checkpoints()), None)
        path = (newest or _checkpoint(path)).path
    return ModelConfig(**Manifest.load(path / MANIFEST).model), torch.float32  # type: ignore[arg-type]


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
    for source in cycle([s for s in dataset.sources if dataset.kind(s) == "text"] or dataset.sources):
        starts = rng.integers(0, max(1, dataset.tokens(source, "train") - length), 2 * SEQUENCES)
        rows = [dataset.read(source, "train", int(start), length + 1) for start in starts]
        yield _batch(np.stack(rows) & np.uint32(MARK - 1))


def _batch(ids: NDArray[Any]) -> Batch:
    tokens = torch.from_numpy(ids.astype(np.int64))
    return tokens[:, :-1], tokens[:, 1:]
