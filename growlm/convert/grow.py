"""Growth from one Hugging Face folder to another of the same kind, shard by shard, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from growlm import __version__
from growlm.convert.dialect import Dialect, ForeignTensor
from growlm.convert.dialects import DIALECTS
from growlm.convert.folder import CONFIG, INDEX, FolderWeights, read_json
from growlm.convert.folding import folded, foldings
from growlm.convert.fuse import FusedFolder, marks_of
from growlm.convert.shards import Entry, PartialFolder, Shard, partial_folder, plan_shards
from growlm.convert.write import fill, index_of, to_json
from growlm.data.progress import QUIET, Progress
from growlm.errors import CheckpointError, GrowthError
from growlm.growth.certify import require
from growlm.growth.choose import Batch, CertificateKind, affordable, certify_as
from growlm.growth.chunks import grow_chunks, one_thread
from growlm.growth.depth import FRESH
from growlm.growth.operators import Growth
from growlm.growth.weights import Weights
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

GROWTH = "growth.json"
"""Every growth that a folder has been through, each with its certificate."""

COMPANIONS = (".json", ".txt", ".model", ".jinja")
"""Files beside the weights that stay as they are: the tokenizer, generation settings, the chat template."""

_REMADE = {CONFIG, INDEX, GROWTH}
_NOT_OURS = ("auto_map", "_name_or_path")  # name code and places that the new folder does not have


def grow_folder(
    source: FolderWeights | FusedFolder,
    growth: Growth,
    out: Path,
    *,
    batch: Batch,
    certificate: CertificateKind,
    shard_bytes: int,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Write the grown model to the folder `out`, in the dialect and dtypes of `source`; its certified entry.

    Raises GrowthError if a Hugging Face folder cannot hold the growth or it is not exact as declared,
    CheckpointError for what its dialect cannot say, DiskError if there is no room.
    """
    refuse_masks(growth)
    stored, factors = _sayable(source, growth.new)
    tensors = {tensor.name: tensor for tensor in source.dialect.tensors(stored)}
    shards = plan_shards([_entry(growth, source, t) for t in tensors.values()], shard_bytes)
    rows = partial(_rows, growth, source, factors)
    with partial_folder(out, _plan(source, growth), shards, progress) as folder:
        files = {}
        with one_thread():
            for shard in shards:
                info = folder.write(shard, lambda w, s=shard: fill(w, s, tensors, growth.new, rows))
                files[shard.file] = {"bytes": info.bytes, "xxh3": info.xxh3}
        _add_companions(source, folder, stored, shards)
        entry = growth.to_dict() | {"files": files}
        with FolderWeights(folder.path) as grown:
            kind = affordable(growth) if certificate == "auto" else certificate
            new = grown if kind == "streaming" else _Unfolded(grown, growth.new, factors)
            entry["certificate"] = certify_as(kind, growth, source, new, batch)
        require(entry["certificate"])
        lineage = [*_lineage(source.folder), entry]
        folder.add(GROWTH, json.dumps({"lineage": lineage}, indent=1).encode())
        folder.publish(out)
    return entry


def _sayable(
    source: FolderWeights | FusedFolder, config: ModelConfig
) -> tuple[ModelConfig, dict[str, float]]:
    """The config as the folder's dialect states it, and the factors for that. Raises CheckpointError."""
    dtype = source.dtype("embedding.weight")
    try:
        return folded(config, source.dialect), foldings(config, source.dialect, dtype)
    except CheckpointError as error:
        able = (d.name for d in DIALECTS.values() if d.native and _can_say(d, config))
        raise CheckpointError(
            f"a {source.dialect.name} folder cannot hold the grown model",
            where=str(source.folder),
            why=error.why,
            fix=f"`growlm import` it, grow that checkpoint, and `growlm export --as {next(able, 'growlm')}`",
        ) from error


def _can_say(dialect: Dialect, config: ModelConfig) -> bool:
    try:
        foldings(config, dialect, torch.float32)
    except CheckpointError:
        return False
    return True


def refuse_masks(growth: Growth) -> None:
    """Raise GrowthError if the grown model needs masks, which only GrowLM's own checkpoints have."""
    if growth.ramp.steps == 0:
        return
    hidden = ", ".join([*growth.ramp.axes, *(["layers"] if growth.ramp.layers else [])])
    new_tokens = list(growth.ramp.axes) == ["vocab"] and not growth.ramp.layers
    raise GrowthError(
        f"this growth hides what is new behind a mask ({hidden}); a Hugging Face folder has no place for one",
        why="without its mask the grown model is another function",
        fix="--set ramp_steps=0 lets new tokens take part at once, which is not exact"
        if new_tokens
        else "--operator zero, clone or lemon and --depth zero_block need none; or `growlm import` it first",
    )


def _entry(growth: Growth, source: Weights, tensor: ForeignTensor) -> Entry:
    """A tensor of the new folder, stored as the one that it comes from."""
    part = parameter_table(growth.new)[tensor.parts[0]]
    fresh = part.layer is not None and growth.layers[part.layer].source == FRESH
    return tensor.name, source.dtype("embedding.weight" if fresh else growth.source_name(part)), tensor.shape


def _rows(
    growth: Growth, source: Weights, factors: Mapping[str, float], part: str, dtype: torch.dtype
) -> Iterator[Tensor]:
    """The rows of a grown parameter as they are stored: multipliers folded in."""
    for rows in grow_chunks(growth, parameter_table(growth.new)[part], "weight", source.read):
        yield (rows * factors[part] if part in factors else rows).to(dtype)


def _plan(source: FolderWeights | FusedFolder, growth: Growth) -> dict[str, Any]:
    """Everything that decides the bytes of the new folder. Source files are known by size and time."""
    own = {"growlm": __version__, "source": marks_of(source.files), "config": source.config_json}
    return own | growth.plan()


def _add_companions(
    source: FolderWeights | FusedFolder, folder: PartialFolder, stored: ModelConfig, shards: list[Shard]
) -> None:
    """config.json, the index, and what stays as it was."""
    kept = {key: value for key, value in source.config_json.items() if key not in _NOT_OURS}
    folder.add(CONFIG, to_json(kept | source.dialect.write_config(stored)))
    if len(shards) > 1:
        folder.add(INDEX, to_json(index_of(shards)))
    for path in sorted(source.folder.iterdir()):
        if path.suffix in COMPANIONS and path.name not in _REMADE and path.is_file():
            folder.add(path.name, path.read_bytes())


def _lineage(folder: Path) -> list[Any]:
    """The growths that a folder has been through already."""
    return read_json(folder / GROWTH)["lineage"] if (folder / GROWTH).is_file() else []


class _Unfolded:
    """Grown weights with the multipliers still beside them, as the growth made them."""

    def __init__(self, weights: Weights, config: ModelConfig, factors: Mapping[str, float]) -> None:
        self.config, self._weights, self._factors = config, weights, factors

    def dtype(self, name: str) -> torch.dtype:
        return self._weights.dtype(name)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        rows = self._weights.read(name, start, stop)
        return rows / self._factors[name] if name in self._factors else rows
