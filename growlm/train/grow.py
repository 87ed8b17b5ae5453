"""Growth as a transaction from checkpoint to checkpoint.

The grown checkpoint is streamed by rows from the old one, certified against it, and committed with the
certificate in its manifest. A kill at any instant leaves the old checkpoint or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from growlm.checkpoint.format import TensorReader, TensorWriter
from growlm.checkpoint.store import Checkpoint, CheckpointStore, Pending
from growlm.errors import GrowthError
from growlm.growth.apply import Kind, grow_births, grow_rows
from growlm.growth.certify import certify, require
from growlm.growth.operators import Growth, plan_growth
from growlm.model.parameters import Parameter, n_parameters, parameter_table
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import state_kinds, stored_name
from growlm.train.state import MODEL_FILE, OPTIMIZER_FILE, STATE_BYTES

CHUNK_BYTES = 2 << 20  # a few of these stay in the cache from reading to writing

Batch = tuple[Tensor, Tensor]


def grow_checkpoint(
    source: Checkpoint,
    target: ModelConfig,
    table: GrowthTable,
    store: CheckpointStore,
    *,
    seed: int,
    batch: Batch,
    facts: dict[str, Any],
) -> tuple[Path, dict[str, Any]]:
    """Grow a checkpoint into `target`'s shape and commit it to `store`; its path and entry in the lineage.

    `batch` is (tokens, targets), each (B, T), for the certificate. Raises GrowthError if the pair is
    refused or not exact as declared, DiskError if there is no room; then nothing was committed.
    """
    manifest: Any = source.manifest
    if manifest.mask < 1:
        raise GrowthError(
            f"this checkpoint is inside a mask ramp (mask {manifest.mask:.2f})",
            where=str(source.path),
            why="its new units are only partly in; growing it again would let them in at once",
            fix="train to the end of the ramp first, or name a checkpoint at the end of a stage",
        )
    growth = plan_growth(ModelConfig(**manifest.model), target, table, seed=seed)
    store.check_space(STATE_BYTES * n_parameters(growth.new))
    with store.begin(manifest.step) as pending:
        stream_weights(source, growth, pending)
        stream_moments(source, growth, pending)
        certificate = certify(growth, source.load(MODEL_FILE), _written(pending), *batch)
        require(certificate)
        entry = {
            "step": manifest.step,
            "stage": manifest.stage + 1,
            "update": manifest.updates,
            "from": growth.old.to_dict(),
            "to": growth.new.to_dict(),
            "operator": table.operator,
            "depth": table.depth,
            "ramp": growth.ramp.to_dict(),
            "certificate": certificate,
        }
        path = pending.commit(
            stage=manifest.stage + 1,
            stage_step=0,
            **{k: getattr(manifest, k) for k in ("tokens", "updates", "skipped", "train_seconds", "flops")},
            model=growth.new.to_dict(),
            mask=growth.ramp.value(0),
            lineage=[*manifest.lineage, entry],
            births=grow_births(growth, manifest.births, manifest.updates),
            guard={},
            boundary="after_growth",
            **facts,
        )
    return path, entry


def stream_weights(source: Checkpoint, growth: Growth, pending: Pending) -> None:
    """Write the grown model file, tensor by tensor, rows by rows."""
    table = parameter_table(growth.new).values()
    entries = [(p.name, torch.float32, p.shape) for p in table]
    with source.reader(MODEL_FILE) as reader:
        _stream(growth, table, "weight", "", pending.writer(MODEL_FILE, entries), reader)


def stream_moments(source: Checkpoint, growth: Growth, pending: Pending) -> None:
    """Write the grown optimizer file: exp_avg, then exp_avg_sq of what the optimizer has it for."""
    table = parameter_table(growth.new).values()
    kinds: tuple[Kind, ...] = ("exp_avg", "exp_avg_sq")
    with source.reader(OPTIMIZER_FILE) as reader:
        name = stored_name(reader.names)
        held = {kind: [p for p in table if kind in state_kinds(p, name)] for kind in kinds}
        entries = [(f"{kind}/{p.name}", torch.float32, p.shape) for kind in kinds for p in held[kind]]
        writer = pending.writer(OPTIMIZER_FILE, entries)
        for kind in kinds:
            _stream(growth, held[kind], kind, f"{kind}/", writer, reader)


def _stream(
    growth: Growth,
    parameters: Iterable[Parameter],
    kind: Kind,
    prefix: str,
    writer: TensorWriter,
    reader: TensorReader,
) -> None:
    read: Callable[[str, int, int], Tensor] = lambda name, a, b: reader.read(prefix + name, a, b)  # noqa: E731
    for parameter in parameters:
        rows = parameter.shape[0]
        step = max(1, CHUNK_BYTES // (4 * parameter.numel // rows))
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            writer.write(grow_rows(growth, parameter, kind, start, stop, read))


def _written(pending: Pending) -> dict[str, Tensor]:
    """The grown weights as they lie on the disk."""
    with TensorReader(pending.path(MODEL_FILE)) as reader:
        return {name: reader.read(name) for name in reader.names}
