"""A checkpoint that all ranks write: each its own files, in one folder, committed by rank 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from growlm.checkpoint.disk import disk_errors, fsync_dir
from growlm.checkpoint.format import FileInfo, TensorInfo, TensorWriter
from growlm.checkpoint.manifest import Places
from growlm.checkpoint.pending import Pending
from growlm.checkpoint.store import CheckpointStore
from growlm.errors import CheckpointError
from growlm.parallel.world import World
from growlm.plan.pieces import Piece

PieceEntry = tuple[torch.dtype, Piece, tuple[int, ...]]
"""Of a tensor to write: its dtype, which piece of it, and the shape of the whole."""


@dataclass
class Joint:
    """A checkpoint in the making; a context manager, which without `commit` leaves nothing behind.

    `parts` are the files that this rank writes: of `model.safetensors` its part, which has the name
    `model-00002-of-00004.safetensors` unless one rank writes all; `written` has those that are finished.
    `pending` is there on rank 0.
    """

    world: World
    folder: Path
    parts: dict[str, str]
    pending: Pending | None
    written: dict[str, tuple[FileInfo, Places]] = field(default_factory=dict)

    @classmethod
    def begin(cls, store: CheckpointStore, world: World, step: int, sizes: Mapping[str, int]) -> Self:
        """Make room for the checkpoint of a step; `sizes` are bytes that this rank has for each file.

        All ranks call it. A rank writes no part of a file for which it has nothing.

        Raises:
            DiskError: there is not enough space, or the folder cannot be written.
            CheckpointError: not every rank sees the folder.
        """
        told = world.exchange({file: size for file, size in sizes.items() if size})
        pending = None
        with world.together():
            if world.main:
                store.check_space(sum(sum(files.values()) for files in told))
                pending = store.begin(step)
        folder = store.folder / world.exchange(pending and pending.folder.name)[0]
        joint = cls(world, folder, _parts(told, world.rank), pending)
        with ExitStack() as stack:
            stack.callback(joint.discard)
            with world.together():
                _must_see(folder)
            stack.pop_all()
        return joint

    @contextmanager
    def writer(
        self, file: str, entries: Mapping[str, PieceEntry], on_bytes: Callable[[int], None] = lambda _: None
    ) -> Iterator[TensorWriter]:
        """For writing this rank's part of a file; it is on the disk when the context ends.

        Wider dtypes come first. `on_bytes` as of TensorWriter. Raises DiskError.
        """
        part = self.parts[file]
        shapes = [(name, dtype, piece.shape) for name, (dtype, piece, _) in entries.items()]
        with TensorWriter(self.folder / part, shapes, on_bytes) as writer:
            yield writer
        with disk_errors(self.folder):
            fsync_dir(self.folder)
        places = {name: (piece.start, shape) for name, (_, piece, shape) in entries.items()}
        self.written[part] = (writer.close(), places)

    def collect(self) -> None:
        """Add what all ranks wrote to the checkpoint; all call it, once they are done.

        Raises:
            CheckpointError: a file of another rank is not here, or not whole.
        """
        told = self.world.exchange(
            [(part, asdict(info), places) for part, (info, places) in self.written.items()]
        )
        with self.world.together():
            if self.pending:
                for part, info, places in (file for files in told for file in files):
                    self.pending.add(part, _file_info(info), _places(places))

    def commit(self, fields: Mapping[str, Any]) -> Path:
        """Give the checkpoint its name; all ranks call it and get its path. `fields` count on rank 0.

        Raises:
            DiskError: as `Pending.commit`.
        """
        path = None
        with self.world.together():
            if self.pending:
                path = self.pending.commit(**fields)
        return self.folder.with_name(self.world.exchange(path and path.name)[0])

    def discard(self) -> None:
        """Remove what was written, if this is rank 0. Does nothing after a commit."""
        if self.pending:
            self.pending.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


def _parts(told: Sequence[Mapping[str, int]], rank: int) -> dict[str, str]:
    """The names of what a rank writes, by file, as all ranks have told what they have for each."""
    parts = {}
    for file in told[rank]:
        writers = [other for other, files in enumerate(told) if file in files]
        stem, number = Path(file).stem, writers.index(rank) + 1
        shard = f"{stem}-{number:05d}-of-{len(writers):05d}{Path(file).suffix}"
        parts[file] = shard if len(writers) > 1 else file
    return parts


def _must_see(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(
            "This rank does not see the checkpoint that rank 0 has begun",
            where=str(folder),
            fix="the run folder must be one folder for all machines: put it on a shared file system",
        )


def _file_info(told: dict[str, Any]) -> FileInfo:
    tensors = {
        name: TensorInfo(**tensor | {"shape": tuple(tensor["shape"])})
        for name, tensor in told["tensors"].items()
    }
    return FileInfo(told["bytes"], told["xxh3"], tensors)


def _places(told: Mapping[str, Any]) -> Places:
    return {name: (tuple(start), tuple(whole)) for name, (start, whole) in told.items()}
