"""Growth of GrowLM's own checkpoints: within a run as a transaction, or by hand into a folder of its own.

The grown tensors are streamed by rows from the old ones and certified against them before they get a name.
A kill at any instant leaves the old checkpoint or both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash

from growlm import __version__
from growlm.checkpoint.format import FileInfo, TensorWriter
from growlm.checkpoint.manifest import MANIFEST, FileRecord, Manifest, tensor_records
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.checkpoint.tensors import StoredTensors
from growlm.checkpoint.weights import StoredWeights
from growlm.convert.fuse import Parent, marks_of
from growlm.convert.shards import partial_folder, plan_shards
from growlm.data.progress import QUIET, Progress
from growlm.errors import GrowthError
from growlm.growth.apply import Kind, grow_births
from growlm.growth.certify import require
from growlm.growth.choose import Batch, CertificateKind, affordable, certify_as
from growlm.growth.chunks import grow_chunks, one_thread
from growlm.growth.fusion import FusedWeights
from growlm.growth.learned import with_learned
from growlm.growth.operators import Growth, plan_growth
from growlm.growth.prepare import block_distances
from growlm.growth.weights import Weights
from growlm.model.parameters import parameter_table
from growlm.parallel.world import World
from growlm.plan.pieces import Piece
from growlm.recipe.schema import GrowthTable
from growlm.recipe.shape import ModelConfig
from growlm.train.joint import Joint, PieceEntry
from growlm.train.optimizer import state_kinds, stored_name
from growlm.train.state import MODEL_FILE, OPTIMIZER_FILE
from growlm.train.stored import stored_companions

ALONE = World.alone(torch.device("cpu"))


def grow_checkpoint(
    source: Checkpoint,
    target: ModelConfig,
    table: GrowthTable,
    store: CheckpointStore,
    *,
    seed: int,
    batch: Batch,
    facts: dict[str, Any],
    batches: Iterable[Batch] | None = None,
    world: World = ALONE,
) -> tuple[Path, dict[str, Any]]:
    """Grow a checkpoint into `target`'s shape and commit it to `store`; its path and entry in the lineage.

    All ranks call it, and each grows its share. `batch` is (tokens, targets), each (B, T), for the
    certificate; `batches` are for operators that learn. Both count on rank 0, which certifies.
    Raises GrowthError if the pair is refused or not exact as declared, DiskError if there is no room; then
    nothing was committed.
    """
    opened = open_growth(source, target, table, seed=seed, batch=batch, batches=batches, world=world)
    with opened as grown:
        share = grown.share(world.rank, world.size)
        sizes = {file: 4 * sum(p.numel for p in pieces.values()) for file, pieces in share.items()}
        with Joint.begin(store, world, source.manifest.step, sizes) as joint:
            with world.together():
                for file in joint.parts:
                    entries = {name: grown.part(name, piece) for name, piece in share[file].items()}
                    with joint.writer(file, entries) as writer:
                        grown.write(share[file], writer)
            joint.collect()
            entry, fields = None, {}
            with world.together():
                if joint.pending:
                    # what trains here fits here
                    kind = "full" if affordable(grown.growth) == "full" else "streaming"
                    entry = grown.certified(joint.pending.open(), batch, kind)
                    fields = grown.fields(entry) | facts
            return joint.commit(fields), world.exchange(entry)[0]


def grow_checkpoint_apart(
    source: Checkpoint,
    target: ModelConfig,
    table: GrowthTable,
    out: Path,
    *,
    seed: int,
    batch: Batch,
    batches: Iterable[Batch] | None,
    certificate: CertificateKind,
    shard_bytes: int,
    others: Sequence[Parent] = (),
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Grow a checkpoint, fused with `others`, into the new folder `out`, in shards; its entry in the lineage.

    Raises what `grow_checkpoint` does, and RecipeError if `out` is in use. After a kill or a full disk the
    same call goes on with the next shard.
    """
    facts = ("recipe_hash", "data_fingerprint", "tokenizer_hash", "environment")
    with open_growth(source, target, table, seed=seed, batch=batch, batches=batches, others=others) as grown:
        shards = [
            shard
            for file, names in grown.tensors.items()
            for shard in plan_shards([grown.entry(n) for n in names], shard_bytes, Path(file).stem)
        ]
        with partial_folder(out, grown.plan(), shards, progress) as partial:
            infos = {}
            for shard in shards:
                pieces = {name: Piece.whole(shape) for name, _, shape in shard.entries}
                infos[shard.file] = partial.write(shard, lambda w, pieces=pieces: grown.write(pieces, w))
            written = StoredTensors(partial.path, tensor_records(infos))
            entry = grown.certified(written, batch, certificate)
            fields = grown.fields(entry) | {name: getattr(source.manifest, name) for name in facts}
            for name, data in stored_companions(source.path).items():
                partial.add(name, data)
                infos[name] = FileInfo(len(data), xxhash.xxh3_128_hexdigest(data), {})
            partial.add(MANIFEST, _manifest(source, infos, fields).to_bytes())
            partial.publish(out)
    return entry


@dataclass(frozen=True)
class GrownState:
    """A growth and the checkpoint that it grows: the tensors to write, by file, and what is said of them."""

    growth: Growth
    source: Checkpoint
    stored: dict[Kind, Weights]
    others: Sequence[Parent]

    @property
    def tensors(self) -> dict[str, list[str]]:
        """The tensors of the weights' and, if there is one, of the optimizer's file."""
        table = parameter_table(self.growth.new)
        files = {MODEL_FILE: list(table)}
        moments = [kind for kind in self.stored if kind != "weight"]
        if moments:
            name = stored_name(self.source.manifest.tensors)
            files[OPTIMIZER_FILE] = [
                f"{kind}/{p.name}" for kind in moments for p in table.values() if kind in state_kinds(p, name)
            ]
        return files

    def entry(self, name: str) -> tuple[str, torch.dtype, tuple[int, ...]]:
        """Name, dtype and shape of a tensor to write."""
        return name, torch.float32, parameter_table(self.growth.new)[_split(name)[1]].shape

    def part(self, name: str, piece: Piece) -> PieceEntry:
        """The entry of a piece of a tensor."""
        _, dtype, shape = self.entry(name)
        return dtype, piece, shape

    def share(self, rank: int, size: int) -> dict[str, dict[str, Piece]]:
        """The rows of tensors that a rank grows, by file: one run of them all, as many bytes for each rank.

        What was learned only rank 0 has, so it grows alone.
        """
        if self.growth.table.operator == "ligo":
            rank, size = (0, 1) if rank == 0 else (1, 1)
        shapes = {name: self.entry(name)[2] for names in self.tensors.values() for name in names}
        total = sum(map(math.prod, shapes.values()))
        edges, begin = (total * rank // size, total * (rank + 1) // size), 0
        share: dict[str, dict[str, Piece]] = {file: {} for file in self.tensors}
        for file, names in self.tensors.items():
            for name in names:
                n_rows, numel = shapes[name][0], math.prod(shapes[name])
                first, end = (min(max(-(-(e - begin) * n_rows // numel), 0), n_rows) for e in edges)
                if first < end:
                    share[file][name] = Piece(((first, end), *Piece.whole(shapes[name]).ranges[1:]))
                begin += numel
        return share

    def write(self, pieces: Mapping[str, Piece], writer: TensorWriter) -> None:
        """Grow rows of tensors and write them, some at a time."""
        with one_thread():
            for name, piece in pieces.items():
                kind, parameter = _split(name)
                record = parameter_table(self.growth.new)[parameter]
                for rows in grow_chunks(self.growth, record, kind, self.stored[kind].read, piece.ranges[0]):
                    writer.write(rows)

    def certified(self, tensors: StoredTensors, batch: Batch, kind: CertificateKind) -> dict[str, Any]:
        """The entry in the lineage, with the certificate of `tensors`; closes them. Raises GrowthError."""
        with StoredWeights(self.growth.new, tensors) as new:
            certificate = certify_as(kind, self.growth, self.stored["weight"], new, batch)
        require(certificate)
        manifest = self.source.manifest
        place = {"step": manifest.step, "stage": manifest.stage + 1, "update": manifest.updates}
        return place | self.growth.to_dict() | {"certificate": certificate}

    def fields(self, entry: dict[str, Any]) -> dict[str, Any]:
        """What the manifest of the grown checkpoint says, beside its files and where they come from."""
        manifest: Any = self.source.manifest
        kept = ("tokens", "updates", "skipped", "train_seconds", "flops")
        return {name: getattr(manifest, name) for name in kept} | {
            "stage": manifest.stage + 1,
            "stage_step": 0,
            "model": self.growth.new.to_dict(),
            "mask": self.growth.ramp.value(0),
            "lineage": [*manifest.lineage, entry],
            "births": grow_births(self.growth, manifest.births, manifest.updates),
            "guard": {},
            "boundary": "after_growth",
        }

    def plan(self) -> dict[str, Any]:
        """Everything that decides the bytes, for going on after a kill."""
        files = {name: file.xxh3 for name, file in self.source.manifest.files.items()}
        others = [marks_of(other.files) for other in self.others]
        return {"growlm": __version__, "source": files, "others": others} | self.growth.plan()


@contextmanager
def open_growth(
    source: Checkpoint,
    target: ModelConfig,
    table: GrowthTable,
    *,
    seed: int,
    batch: Batch,
    batches: Iterable[Batch] | None,
    others: Sequence[Parent] = (),
    world: World = ALONE,
) -> Iterator[GrownState]:
    """Plan the growth of a checkpoint and open its files, on all ranks. Raises GrowthError if it is refused.

    Fused with others it has no optimizer state (`FusedWeights`).
    """
    kinds: tuple[Kind, ...] = ("weight", "exp_avg", "exp_avg_sq")
    held: list[Kind] = [
        k for k in kinds if k == "weight" or f"{k}/embedding.weight" in source.manifest.tensors
    ]
    with ExitStack() as stack:
        with world.together():
            refuse_inside_a_ramp(source)
            stored: dict[Kind, Weights] = {
                kind: stack.enter_context(StoredWeights.of(source, kind)) for kind in held
            }
            if others:
                stored = {"weight": FusedWeights([stored["weight"], *(other.weights for other in others)])}
            old = stored["weight"]
            distances = block_distances(old, target, table, batch[0]) if world.main else None
        distances = world.exchange(distances)[0]
        with world.together():
            growth = plan_growth(old.config, target, table, seed=seed, distances=distances)
            growth = with_learned(growth, old, batches) if world.main else growth
        yield GrownState(growth, source, stored, others)


def refuse_inside_a_ramp(checkpoint: Checkpoint) -> None:
    """Raise GrowthError if the checkpoint has units that are only partly in."""
    mask = checkpoint.manifest.mask
    if mask < 1:
        raise GrowthError(
            f"this checkpoint is inside a mask ramp (mask {mask:.2f})",
            where=str(checkpoint.path),
            why="its new units are only partly in; growing it again would let them in at once",
            fix="train to the end of the ramp first, or name a checkpoint at the end of a stage",
        )


def _split(name: str) -> tuple[Kind, str]:
    """The kind and the parameter of a tensor's name in a file: `exp_avg/norm.weight`, `norm.weight`."""
    for kind in ("exp_avg", "exp_avg_sq"):
        if name.startswith(f"{kind}/"):
            return kind, name.removeprefix(f"{kind}/")
    return "weight", name


def _manifest(source: Checkpoint, infos: dict[str, FileInfo], fields: dict[str, Any]) -> Manifest:
    files = {file: FileRecord(bytes=info.bytes, xxh3=info.xxh3) for file, info in infos.items()}
    return Manifest(
        step=source.manifest.step, created=time.time(), files=files, tensors=tensor_records(infos), **fields
    )
