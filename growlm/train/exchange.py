"""Models in and out: a Hugging Face folder as a checkpoint to go on from, a checkpoint as such a folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from growlm.checkpoint.disk import disk_errors, write_atomic
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.checkpoint.weights import StoredWeights
from growlm.convert.card import model_card
from growlm.convert.companions import (
    GROWTH,
    TOKENIZER,
    companions_for,
    companions_of,
    special_ids,
)
from growlm.convert.dialect import Dialect
from growlm.convert.dialects import DIALECTS, native_dialect
from growlm.convert.folder import FolderWeights
from growlm.convert.shards import check_new
from growlm.convert.write import read_chunks, write_folder
from growlm.data.card import read_card
from growlm.data.progress import QUIET, Progress
from growlm.data.tokenizer import Tokenizer
from growlm.errors import CheckpointError, DataError, RecipeError
from growlm.model.parameters import family_of, n_parameters, parameter_table
from growlm.recipe.schema import DataTable, ModelTable, OptimTable, Recipe, StageTable
from growlm.recipe.shape import ModelConfig
from growlm.recipe.template import recipe_toml
from growlm.train.restore import find_checkpoint, find_tokenizer, trained_context
from growlm.train.state import MODEL_FILE
from growlm.train.stored import DATA_CARD, stored_companions, stored_recipe

RECIPE = "recipe.toml"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def import_folder(folder: Path, out: Path) -> Path:
    """Write a Hugging Face folder as a GrowLM checkpoint in the new folder `out`; the checkpoint's path.

    The weights become fp32; the tokenizer goes along. `out` also gets a recipe that trains the model on.
    Raises CheckpointError for a folder that cannot be read, RecipeError if `out` is in use, DiskError;
    then there is no `out`.
    """
    check_new(out)
    with FolderWeights(folder) as weights:
        files = companions_of(folder, weights.config_json)
        tokenizer_hash = _tokenizer_hash(folder)
        try:
            path = _write_checkpoint(weights, out, files, tokenizer_hash)
            write_atomic(out / RECIPE, recipe_toml(_continuing(weights.config, folder, out)).encode())
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
    return path


def _write_checkpoint(
    weights: FolderWeights, out: Path, files: Mapping[str, bytes], tokenizer_hash: str
) -> Path:
    table = parameter_table(weights.config)
    store = CheckpointStore(out / "checkpoints", keep=2)
    store.check_space(4 * n_parameters(weights.config))
    with store.begin(0) as pending:
        writer = pending.writer(MODEL_FILE, [(name, torch.float32, p.shape) for name, p in table.items()])
        for name in table:
            for rows in read_chunks(weights, name):
                writer.write(rows.float())
        with disk_errors(out):
            for name, data in files.items():
                pending.path(name).write_bytes(data)
        counts = ("stage", "stage_step", "tokens", "updates", "skipped", "train_seconds", "flops")
        return pending.commit(
            **dict.fromkeys(counts, 0),
            model=weights.config.to_dict(),
            mask=1.0,
            lineage=[],
            births={},
            guard={},
            recipe_hash="",
            data_fingerprint="",
            tokenizer_hash=tokenizer_hash,
            environment={},
        )


def _tokenizer_hash(folder: Path) -> str:
    """The hash of the tokenizer as GrowLM uses it; empty if there is none or it loses text."""
    try:
        return Tokenizer.load(folder / TOKENIZER).hash
    except DataError:
        return ""


def _continuing(config: ModelConfig, folder: Path, out: Path) -> Recipe:
    """A recipe that trains an imported model on: a start to edit."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-._") or "imported"
    learned = family_of(config).position == "learned"
    same = ("family", "head_dim", "vocab_size", "tied", "rope_theta", "rotary_share", "xpos_scale_base")
    fields = {key: getattr(config, key) for key in same}
    base = ("mup_base_d_model", "mup_base_hidden", "mup_base_n_layers")
    stated = config.to_dict()
    fields |= {key: stated[key] for key in base if stated[key]}
    if learned:
        fields["max_positions"] = config.max_positions
    length = min(1024, config.max_positions or 1024)
    sizes = {key: getattr(config, key) for key in ("d_model", "n_heads", "n_kv_heads", "d_ff", "n_layers")}
    stage = StageTable(name="continue", **sizes, tokens=8_000_000, seq_len=length, batch_size=8)
    return Recipe(
        name=name,
        init=str(out),
        model=ModelTable(**fields),
        data=DataTable(path="data", mixture={"text": 1.0}),  # pyright: ignore[reportCallIssue]
        optim=OptimTable(lr=1e-4),  # pyright: ignore[reportCallIssue]
        stages=[stage],
    )  # pyright: ignore[reportCallIssue]


def export_checkpoint(
    source: Path,
    out: Path,
    *,
    dialect: str | None,
    dtype: str,
    shard_bytes: int,
    data: Path | None,
    progress: Progress = QUIET,
) -> Dialect:
    """Write the model of a run or checkpoint as the new Hugging Face folder `out`; the dialect it is in.

    Without a `dialect` it is the one that plain transformers loads, or GrowLM's own for a family without.
    Raises CheckpointError for what the dialect cannot say or a model inside a mask ramp, RecipeError,
    DiskError; then there is no `out`. The same call continues after a kill.
    """
    check_new(out)
    checkpoint = find_checkpoint(source)
    manifest = checkpoint.manifest
    if manifest.mask < 1:
        raise CheckpointError(
            f"this checkpoint is inside a mask ramp (mask {manifest.mask:.2f})",
            where=str(checkpoint.path),
            why="a folder of weights has no mask: without it the model is another function",
            fix="train to the end of the ramp first, or name a checkpoint at the end of a stage",
        )
    with StoredWeights.of(checkpoint) as weights:
        chosen = _dialect(dialect, weights.config)
        files = _companions(checkpoint, data, weights.config)
        run = checkpoint.path.parent.parent
        recipe = stored_recipe(run)
        card = model_card(
            out.resolve().name,
            weights.config,
            chosen,
            recipe=recipe,
            trained=manifest.model_dump(include={"step", "tokens", "flops", "train_seconds"}),
            lineage=[*_foreign_lineage(files), *manifest.lineage],
            data=read_card(run / DATA_CARD),
        )
        write_folder(
            weights,
            chosen,
            out,
            progress=progress,
            dtype=DTYPES[dtype],
            shard_bytes=shard_bytes,
            source={name: record.xxh3 for name, record in manifest.files.items()},
            keys=_keys(chosen, dtype, weights.config, recipe and trained_context(checkpoint))
            | special_ids(files),
            files=files | {"README.md": card.encode()},
        )
    return chosen


def _keys(dialect: Dialect, dtype: str, config: ModelConfig, context: int | None) -> dict[str, Any]:
    """Keys of config.json beside the shape: how weights are stored, and the context of the training."""
    keys: dict[str, Any] = {"torch_dtype": str(DTYPES[dtype]).removeprefix("torch.")}
    if "max_positions" in dialect.keys and config.max_positions is None and context:
        keys[dialect.keys["max_positions"]] = context
    return keys


def _dialect(name: str | None, config: ModelConfig) -> Dialect:
    if name is None:
        return native_dialect(config.family) or DIALECTS["growlm"]
    if name not in DIALECTS:
        raise RecipeError(
            f"there is no dialect {name!r}", where="--as", fix=f"write one of {', '.join(DIALECTS)}"
        )
    return DIALECTS[name]


def _companions(checkpoint: Checkpoint, data: Path | None, config: ModelConfig) -> dict[str, bytes]:
    """The files that were imported with the model, or those made for the tokenizer it was trained with."""
    files = stored_companions(checkpoint.path)
    if TOKENIZER in files or not checkpoint.manifest.tokenizer_hash:
        return files
    context = config.max_positions or trained_context(checkpoint)
    return files | companions_for(find_tokenizer(checkpoint, data), context)


def _foreign_lineage(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """The growths that a model had been through before it was imported."""
    return json.loads(files[GROWTH])["lineage"] if GROWTH in files else []
