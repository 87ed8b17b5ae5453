"""Writing a Hugging Face folder, tensor by tensor, from weights that may lie anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from growlm import __version__
from growlm.checkpoint.format import TensorWriter
from growlm.convert.companions import to_json
from growlm.convert.dialect import Dialect, ForeignTensor
from growlm.convert.folder import CONFIG, INDEX
from growlm.convert.folding import folded, foldings
from growlm.convert.shards import Shard, partial_folder, plan_shards
from growlm.data.progress import QUIET, Progress
from growlm.growth.weights import Weights
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

CHUNK_ELEMENTS = 1 << 20


def write_folder(
    weights: Weights,
    dialect: Dialect,
    out: Path,
    *,
    dtype: torch.dtype,
    shard_bytes: int,
    source: Mapping[str, Any],
    keys: Mapping[str, Any],
    files: Mapping[str, bytes],
    progress: Progress = QUIET,
) -> None:
    """Write a model as the new folder `out` in a dialect; a second identical call goes on after a kill.

    `source` identifies the weights, in plain JSON types; `keys` are put into config.json beside the shape;
    `files` are written beside the tensors. Raises CheckpointError for what the dialect cannot say,
    RecipeError if `out` is in use, DiskError if there is no room.
    """
    stored, factors = folded(weights.config, dialect), foldings(weights.config, dialect, dtype)
    tensors = {tensor.name: tensor for tensor in dialect.tensors(stored)}
    shards = plan_shards([(t.name, dtype, t.shape) for t in tensors.values()], shard_bytes)

    def rows(part: str, dtype: torch.dtype) -> Iterator[Tensor]:
        for chunk in read_chunks(weights, part):
            yield (chunk * factors[part] if part in factors else chunk).to(dtype)

    with partial_folder(out, {"growlm": __version__, "source": source}, shards, progress) as partial:
        for shard in shards:
            partial.write(shard, lambda writer, s=shard: fill(writer, s, tensors, stored, rows))
        partial.add(CONFIG, to_json(dialect.write_config(stored) | dict(keys)))
        if len(shards) > 1:
            partial.add(INDEX, to_json(index_of(shards)))
        for name, data in files.items():
            partial.add(name, data)
        partial.publish(out)


def read_chunks(weights: Weights, name: str) -> Iterator[Tensor]:
    """The rows of a parameter in order, a few MB at a time."""
    shape = parameter_table(weights.config)[name].shape
    step = max(1, CHUNK_ELEMENTS * shape[0] // torch.Size(shape).numel())
    for start in range(0, shape[0], step):
        yield weights.read(name, start, min(shape[0], start + step))


def fill(
    writer: TensorWriter,
    shard: Shard,
    tensors: Mapping[str, ForeignTensor],
    config: ModelConfig,
    rows: Callable[[str, torch.dtype], Iterable[Tensor]],
) -> None:
    """Write every tensor of a shard, plain ones in pieces, packed ones whole.

    `rows(parameter, dtype)` gives the rows of a GrowLM parameter in order.
    """
    for name, dtype, _ in shard.entries:
        tensor = tensors[name]
        if tensor.pack is not None:
            shapes = [parameter_table(config)[part].shape for part in tensor.parts]
            parts = zip(tensor.parts, shapes, strict=True)
            writer.write(tensor.pack([_whole(shape, dtype, rows(part, dtype)) for part, shape in parts]))
            continue
        for piece in rows(tensor.parts[0], dtype):
            writer.write(piece)


def _whole(shape: tuple[int, ...], dtype: torch.dtype, rows: Iterable[Tensor]) -> Tensor:
    """Rows put together without holding them twice."""
    out, at = torch.empty(shape, dtype=dtype), 0
    for piece in rows:
        out[at : at + len(piece)] = piece
        at += len(piece)
    return out


def index_of(shards: Sequence[Shard]) -> dict[str, Any]:
    """The index of a sharded folder: which file holds which tensor."""
    weight_map = {name: shard.file for shard in shards for name, _, _ in shard.entries}
    return {"metadata": {"total_size": sum(shard.bytes for shard in shards)}, "weight_map": weight_map}
