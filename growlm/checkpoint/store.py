"""A folder of checkpoints: each is committed whole, verified before use, and pruned without risk.

A checkpoint is a folder `step-00000120`, or `step-00000120-grown` for the far side of a growth. It appears
by one rename, after everything in it is on the disk, so that a kill at any instant leaves the old newest
checkpoint or the new one. Reading changes nothing; `begin`, `check_space` and `prune` first clear what other
processes left behind, so their caller holds the run's lock.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from growlm.checkpoint.disk import (
    disk_errors,
    free_bytes,
    fsync_dir,
    hash_file,
    human_bytes,
    make_dirs,
)
from growlm.checkpoint.manifest import MANIFEST, FileRecord, Manifest
from growlm.checkpoint.pending import Pending
from growlm.errors import CheckpointError, DiskError
from growlm.testing.faults import fault_point

if TYPE_CHECKING:
    import torch

    from growlm.checkpoint.tensors import StoredTensors

_NAME = re.compile(r"step-(\d{8,})(-grown)?(-old)?")
_LEFTOVER = re.compile(r"\.(?:tmp|trash)-.+-\d{1,9}")
_HEADROOM = 1.2


@dataclass(frozen=True)
class Entry:
    """A folder named like a checkpoint; nothing in it was read yet.

    `replaced`: a second save of the same step moved it aside, to `...-old`, before taking its place.
    """

    path: Path
    step: int
    grown: bool
    replaced: bool

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """The entry of a folder, or None if it is not named like a checkpoint."""
        match = _NAME.fullmatch(path.name)
        return cls(path, int(match[1]), match[2] is not None, match[3] is not None) if match else None

    @property
    def age(self) -> tuple[int, bool, bool]:
        """Larger is newer: by step, grown after its ungrown twin, replaced before its replacement."""
        return self.step, self.grown, not self.replaced


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    path: Path
    manifest: Manifest

    def open(self) -> StoredTensors:
        """All tensors, to read any rows and columns of them: `with checkpoint.open() as tensors: ...`."""
        from growlm.checkpoint.tensors import StoredTensors

        return StoredTensors(self.path, self.manifest.tensors)

    def shards(self, file: str) -> list[str]:
        """The files with what a small checkpoint has in `file`: that one, or `model-00001-of-00003...`"""
        stem = re.escape(file.removesuffix(".safetensors"))
        shard = re.compile(rf"{stem}(-\d{{5}}-of-\d{{5}})?\.safetensors")
        return sorted(name for name in self.manifest.files if shard.fullmatch(name))

    def names(self, file: str) -> list[str]:
        """The tensors that lie in a file or in its shards."""
        files = set(self.shards(file))
        records = self.manifest.tensors.items()
        return [name for name, tensor in records if any(piece.file in files for piece in tensor.pieces)]

    def load(self, file: str) -> dict[str, torch.Tensor]:
        """Every tensor of a file or of its shards, each checked against its hash as it lies in memory.

        Raises:
            CheckpointError: a tensor is not what was saved, or the checkpoint has no such file.
        """
        if not self.shards(file):
            raise CheckpointError("This checkpoint has no such file", where=str(self.path / file))
        with self.open() as tensors:
            return {name: tensors.read(name) for name in self.names(file)}


class CheckpointStore:
    """The checkpoints of one run, in `folder`; `keep` is how many `prune` leaves beside the growths."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep
        self._verified: set[Path] = set()  # by this process: written by it, or read and hashed
        self._boundaries: dict[Path, bool] = {}  # which are one side of a growth, as far as is known
        self._clean = False

    def begin(self, step: int) -> Pending:
        """Start the checkpoint of a step: `with store.begin(120) as pending: ...; pending.commit(...)`.

        Raises:
            DiskError: the folder cannot be written.
        """
        self._clean_up()
        return Pending(self, step)

    def check_space(self, size: int) -> None:
        """Make sure that a checkpoint of `size` bytes fits, with a fifth to spare, before writing it.

        Raises:
            DiskError: says how much is needed and how much is free.
        """
        self._clean_up()
        needed, free = int(size * _HEADROOM), free_bytes(self.folder)
        if free < needed:
            raise DiskError(
                "Not enough space for the next checkpoint",
                where=str(self.folder),
                why=f"{human_bytes(needed)} needed (a fifth is to spare), {human_bytes(free)} free",
                fix="free some space or move the run folder to a larger disk; the same command continues",
            )

    def checkpoints(self) -> list[Entry]:
        """Every folder named like a checkpoint, newest first, whole or not.

        Raises:
            DiskError: the folder cannot be read.
        """
        with disk_errors(self.folder):
            entries = [Entry.of(path) for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted((entry for entry in entries if entry), key=lambda entry: entry.age, reverse=True)

    def latest_valid(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint whose every byte is what was saved; None if nothing was ever saved here.

        `report` gets one line for each newer one that is damaged: which file, and what is wrong with it.
        What this process wrote or verified is not hashed again.

        Raises:
            CheckpointError: there are checkpoints, and none is whole.
        """
        damage = []
        for entry in self.checkpoints():
            problems = self.verify(entry.path, contents=not self.trusts(entry.path))
            if not problems:
                self.trust(entry.path)
                return Checkpoint(entry.path, Manifest.load(entry.path / MANIFEST))
            damage.append(damage_line(entry.path, problems))
            report(f"{damage[-1]}; trying the checkpoint before it")
        self.refuse_a_fresh_start(damage)
        return None

    def refuse_a_fresh_start(self, damage: Sequence[str]) -> None:
        """Where no checkpoint is whole: fine if nothing was ever saved here. `damage`: a line for each.

        Raises:
            CheckpointError: there are checkpoints, or folders that look like them.
        """
        if damage or (self.folder.is_dir() and any(self.folder.glob("step-*"))):
            raise CheckpointError(
                "This run has checkpoints, but none of them is whole; it will not start over silently",
                where=str(self.folder),
                why="; ".join(damage) or "no folder in it has the name of a checkpoint, step-00000120",
                fix="bring one back from a backup, or start over in another run folder",
            )

    def trusts(self, path: Path) -> bool:
        """Whether this process wrote a checkpoint, or has hashed all of it."""
        return path in self._verified

    def trust(self, path: Path) -> None:
        """Take a checkpoint as verified from now on."""
        self._verified.add(path)

    @staticmethod
    def verify(path: Path, rank: int = 0, size: int = 1, *, contents: bool = True) -> list[str]:
        """Hash every file of a checkpoint; each problem as 'file: what is wrong'. Empty: all is whole.

        Rank `rank` of `size` takes every size-th file, and rank 0 the names. Without `contents` only names,
        sizes and the manifest are checked.
        """
        try:
            manifest = Manifest.load(path / MANIFEST)
            present = {child.name for child in path.iterdir()} - {MANIFEST}
        except CheckpointError as error:
            return [f"{MANIFEST}: {error.why}"]
        except OSError as error:
            return [f"{path.name}: {error.strerror}"]
        problems = []
        if rank == 0 and Entry.of(path) and path.name.removesuffix("-old") != _folder_name(manifest):
            problems.append(f"{MANIFEST}: it belongs to {_folder_name(manifest)}")
        surplus = sorted(present - manifest.files.keys()) if rank == 0 else []
        problems += [f"{name}: not part of the checkpoint" for name in surplus]
        for name in sorted(manifest.files)[rank::size]:
            if problem := _file_problem(path / name, manifest.files[name], contents):
                problems.append(f"{name}: {problem}")
        return problems

    def prune(self) -> list[Path]:
        """Remove what is older than the newest `keep` whole checkpoints, and return it.

        Both sides of every growth stay, and so does everything while fewer than `keep` are whole. Nothing
        is hashed here, which would read terabytes at every save: whole is what this process wrote or
        verified, and of the others those whose manifest is whole and whose files are all there in full size.

        Raises:
            DiskError: a folder cannot be removed.
        """
        self._clean_up()
        removed, whole = [], 0
        with disk_errors(self.folder):
            for entry in self.checkpoints():
                twin = entry.path.with_name(entry.path.name.removesuffix("-old"))
                surplus = whole >= self._keep and not self._is_boundary(entry)
                if surplus or (entry.replaced and twin in self._verified):
                    self._remove(entry.path)
                    removed.append(entry.path)
                elif whole < self._keep and (
                    self.trusts(entry.path) or not self.verify(entry.path, contents=False)
                ):
                    whole += 1
        return removed

    def publish(self, folder: Path, manifest: Manifest) -> Path:
        """Give a finished folder its name, as the last act of a commit. Raises OSError."""
        target = self.folder / _folder_name(manifest)
        fault_point("checkpoint.before_rename")
        if target.exists():
            # Two renames cannot be one: in between, the old one still counts as a checkpoint.
            aside = target.with_name(f"{target.name}-old")
            if aside.exists():
                self._remove(aside)
            target.rename(aside)
            self._forget(target)
            fault_point("checkpoint.between_renames")
        folder.rename(target)
        fault_point("checkpoint.after_rename")
        fsync_dir(self.folder)
        self._boundaries[target] = manifest.boundary is not None
        self.trust(target)
        return target

    def _is_boundary(self, entry: Entry) -> bool:
        """Whether it is one side of a growth; a damaged manifest has only its name left to say so."""
        if entry.path not in self._boundaries:  # a manifest may be 100 MB long: each is read once
            try:
                found = entry.grown or Manifest.load(entry.path / MANIFEST).boundary is not None
            except CheckpointError:
                found = False
            self._boundaries[entry.path] = found
        return self._boundaries[entry.path]

    def _remove(self, path: Path) -> None:
        """Rename first: half a removal must not look like a checkpoint."""
        trash = self.folder / f".trash-{path.name}-{os.getpid()}"
        fault_point("prune.before_rename")
        path.rename(trash)
        self._forget(path)
        fsync_dir(self.folder)
        fault_point("prune.after_rename")
        shutil.rmtree(trash)
        fault_point("prune.after_remove")

    def _forget(self, path: Path) -> None:
        """The checkpoint that had this name has it no more."""
        self._verified.discard(path)
        self._boundaries.pop(path, None)

    def _clean_up(self) -> None:
        """Once, before the first write: make the folder, and clear what was left in it.

        The caller holds the run's lock, so whoever left it, on whatever host, writes no more.
        """
        if self._clean:
            return
        with disk_errors(self.folder):
            make_dirs(self.folder)
            for path in self.folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    shutil.rmtree(path)
        self._clean = True


def damage_line(path: Path, problems: Sequence[str]) -> str:
    """What is wrong with a checkpoint, in one line: its first problem, and how many more there are."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{path.name} is damaged: {problems[0]}{more}"


def _folder_name(manifest: Manifest) -> str:
    return f"step-{manifest.step:08d}" + ("-grown" if manifest.boundary == "after_growth" else "")


def _file_problem(path: Path, record: FileRecord, contents: bool) -> str:
    """What is wrong with a file; empty if nothing is. It is read only for its contents."""
    try:
        size = path.stat().st_size
        if size != record.bytes:
            return f"{size} bytes long, {record.bytes} were saved"
        if not path.is_file():
            return "not a file"
        whole = not contents or hash_file(path) == record.xxh3
        return "" if whole else "its content changed since it was saved"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return error.strerror or str(error)
