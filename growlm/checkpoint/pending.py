"""A checkpoint while it is written, by one process or by many into one folder."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from growlm.checkpoint.disk import disk_errors, fsync_dir, fsync_file, hash_file, write_durable
from growlm.checkpoint.manifest import MANIFEST, FileRecord, Manifest, Places, tensor_records
from growlm.errors import CheckpointError
from growlm.testing.faults import fault_point

if TYPE_CHECKING:
    import torch

    from growlm.checkpoint.format import FileInfo, TensorWriter
    from growlm.checkpoint.store import CheckpointStore
    from growlm.checkpoint.tensors import StoredTensors


class Pending:
    """A checkpoint being written into a temporary folder; made by `CheckpointStore.begin`.

    A context manager: leaving it without `commit`, for whatever reason, removes the folder. `folder` is
    where other processes put their files before they are added.
    """

    def __init__(self, store: CheckpointStore, step: int) -> None:
        self._store, self._step = store, step
        self.folder = store.folder / f".tmp-{step}-{os.getpid()}"
        self._writers: dict[str, TensorWriter] = {}
        self._added: dict[str, FileInfo] = {}
        self._places: dict[str, Places] = {}  # of every file with tensors
        try:
            with disk_errors(self.folder):
                self.folder.mkdir()
                fault_point("checkpoint.after_mkdir")
        except BaseException:
            self.discard()
            raise

    def path(self, name: str) -> Path:
        """Where to write a file that is not made of tensors; `commit` syncs and hashes it."""
        return self.folder / name

    def writer(
        self,
        file: str,
        entries: Sequence[tuple[str, torch.dtype, tuple[int, ...]]],
        pieces: Places | None = None,
    ) -> TensorWriter:
        """Start a tensor file; `commit` closes it. `pieces` says where those lie that are not whole tensors.

        The shapes in `entries` are those of the pieces.
        """
        from growlm.checkpoint.format import TensorWriter

        self._writers[file] = TensorWriter(self.folder / file, entries)
        self._places[file] = pieces or {}
        return self._writers[file]

    def add(self, file: str, info: FileInfo, pieces: Places | None = None) -> None:
        """Take up a tensor file that another process has written into `folder` and synced, with its hashes.

        Raises:
            CheckpointError: it is not in this folder, or of another size.
        """
        path = self.folder / file
        try:
            size = path.stat().st_size
            why = f"{size} bytes long, {info.bytes} were written" if size != info.bytes else ""
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            raise CheckpointError(
                "What another process wrote for this checkpoint is not here",
                where=str(path),
                why=why,
                fix="the run folder must be one folder for all machines: put it on a shared file system",
            )
        self._added[file], self._places[file] = info, pieces or {}

    def open(self) -> StoredTensors:
        """All tensors written or added so far, to read them back; no more can be written to their files.

        Raises:
            DiskError: a file cannot be synced.
            ValueError: a tensor is not complete.
        """
        from growlm.checkpoint.tensors import StoredTensors

        return StoredTensors(self.folder, tensor_records(self._infos(), self._places))

    def commit(self, **fields: Any) -> Path:
        """Put everything on the disk and give it its name; only then is it saved.

        `fields` are those of Manifest, without step, created, files and tensors. An older checkpoint of
        the same name is replaced. On any failure the temporary folder is removed.

        Raises:
            CheckpointError: it has more pieces than a manifest can list.
            DiskError: full, read-only or failing; the checkpoints before this one are untouched.
        """
        try:
            with disk_errors(self._store.folder):
                return self._commit(fields)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written. Does nothing after a commit."""
        for writer in self._writers.values():
            writer.abandon()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _commit(self, fields: dict[str, Any]) -> Path:
        files = self._finish_files()
        tensors = tensor_records(self._infos(), self._places)
        manifest = Manifest(step=self._step, created=time.time(), files=files, tensors=tensors, **fields)
        fault_point("checkpoint.before_manifest")
        write_durable(self.folder / MANIFEST, manifest.to_bytes())
        fault_point("checkpoint.after_manifest")
        fsync_dir(self.folder)
        return self._store.publish(self.folder, manifest)

    def _infos(self) -> dict[str, FileInfo]:
        """Every tensor file; those written here are closed, which syncs them."""
        return self._added | {file: writer.close() for file, writer in self._writers.items()}

    def _finish_files(self) -> dict[str, FileRecord]:
        """Sync and hash what is not done yet."""
        files = {}
        for name in sorted({path.name for path in self.folder.iterdir()} | self._added.keys()):
            if name in self._places:
                info = self._added[name] if name in self._added else self._writers[name].close()
                files[name] = FileRecord(bytes=info.bytes, xxh3=info.xxh3)
            else:
                path = self.folder / name
                fsync_file(path)
                files[name] = FileRecord(bytes=path.stat().st_size, xxh3=hash_file(path))
            fault_point("checkpoint.after_file")
        return files
