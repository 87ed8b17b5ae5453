"""Writing a large folder in shards, one after another, so that a kill costs one shard at most.

Everything goes into `OUT.partial/files`. A journal beside it says which plan the shards belong to and which
of them are whole; the same command goes on after the last one. One rename turns the complete files into OUT.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash

from growlm.checkpoint.disk import (
    disk_errors,
    free_bytes,
    fsync_dir,
    fsync_file,
    hash_file,
    human_bytes,
    make_dirs,
    write_atomic,
)
from growlm.checkpoint.format import FileInfo, TensorInfo, TensorWriter
from growlm.checkpoint.lock import RunLock
from growlm.data.progress import QUIET, Progress
from growlm.errors import DiskError, GrowLMError, RecipeError
from growlm.testing.faults import fault_point

FILES, JOURNAL, LOCK = "files", "journal.jsonl", "lock"
HEADROOM = 64 << 20  # bytes left free on the disk

Entry = tuple[str, torch.dtype, tuple[int, ...]]
"""Name, dtype and shape of a tensor to write."""


@dataclass(frozen=True)
class Shard:
    """One file to write and its tensors, in their order."""

    file: str
    entries: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        """Size of its tensors."""
        return sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in self.entries)


def plan_shards(entries: Sequence[Entry], shard_bytes: int, stem: str = "model") -> list[Shard]:
    """Tensors dealt in order to files of at most `shard_bytes`, or of one tensor where that is larger.

    One file is `model.safetensors`, several are `model-00001-of-00003.safetensors` and so on.
    """
    groups: list[list[Entry]] = []
    room = 0
    for entry in entries:
        size = math.prod(entry[2]) * entry[1].itemsize
        if not groups or size > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(entry)
        room -= size
    if len(groups) == 1:
        names = [f"{stem}.safetensors"]
    else:
        names = [f"{stem}-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    aligned = [sorted(group, key=lambda entry: -entry[1].itemsize) for group in groups]
    return [Shard(name, tuple(group)) for name, group in zip(names, aligned, strict=True)]


def check_new(out: Path) -> None:
    """Raise RecipeError unless `out` is free: nothing that exists is ever written into."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError("the output is not an empty folder", where=str(out), fix="name a new folder")


class PartialFolder:
    """`OUT.partial` on its way to OUT; made by `partial_folder`. `path` is where its files lie."""

    def __init__(self, root: Path, done: dict[str, FileInfo], on_bytes: Callable[[int], None]) -> None:
        self.path, self._root, self._done, self._on_bytes = root / FILES, root, done, on_bytes

    def write(self, shard: Shard, fill: Callable[[TensorWriter], object]) -> FileInfo:
        """Write a shard by `fill`, or nothing if it is whole already; what it holds. Raises DiskError."""
        if shard.file not in self._done:
            with TensorWriter(self.path / shard.file, shard.entries, self._on_bytes) as writer:
                fill(writer)
                info = writer.close()
            fault_point("shards.after_file")
            self._note({"file": shard.file, **asdict(info)})
            fault_point("shards.after_journal")
            self._done[shard.file] = info
        return self._done[shard.file]

    def add(self, name: str, data: bytes) -> None:
        """Write a small file, durably."""
        write_atomic(self.path / name, data)

    def publish(self, out: Path) -> None:
        """Give the finished files their folder's name."""
        with disk_errors(self._root):
            fsync_dir(self.path)
            fault_point("shards.before_rename")
            if out.exists():
                out.rmdir()  # it is empty: `check_new`
            self.path.rename(out)
            fsync_dir(out.parent)
            fault_point("shards.after_rename")
            shutil.rmtree(self._root)

    def _note(self, record: Mapping[str, Any]) -> None:
        journal = self._root / JOURNAL
        with disk_errors(journal):
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            fsync_file(journal)
            fsync_dir(self.path)


@contextmanager
def partial_folder(
    out: Path, plan: Mapping[str, Any], shards: Sequence[Shard], progress: Progress = QUIET
) -> Iterator[PartialFolder]:
    """The folder in which `out` is made by `plan` (plain JSON types), with the shards that are whole.

    It stays after a kill or a full disk, for the same command to go on, and is removed after any other
    error that the user can cause.

    Raises:
        RecipeError: `out` is in use, or another plan was begun here.
        DiskError: not enough space for what is left to write.
        LockError: another process is writing it.
    """
    check_new(out)
    root = out.with_name(out.name + ".partial")
    mark = _mark(plan, shards)
    done = _finished(root, mark)
    left = sum(shard.bytes for shard in shards if shard.file not in done)
    _check_space(out, left)
    with RunLock(root):
        try:
            _start_journal(root, mark, done)
            with progress.task(f"write {out.name}", left) as advance:
                yield PartialFolder(root, done, advance)
        except DiskError:
            raise
        except GrowLMError:
            shutil.rmtree(root, ignore_errors=True)
            raise


def _mark(plan: Mapping[str, Any], shards: Sequence[Shard]) -> str:
    """A hash of everything that decides the bytes."""
    layout = [(s.file, [(n, str(d), shape) for n, d, shape in s.entries]) for s in shards]
    return xxhash.xxh3_128_hexdigest(json.dumps([plan, layout], sort_keys=True).encode())


def _finished(root: Path, mark: str) -> dict[str, FileInfo]:
    """The shards of an earlier, interrupted run of the same plan whose bytes are still what was written."""
    if not (root / JOURNAL).is_file():
        if root.exists() and any(child.name != LOCK for child in root.iterdir()):
            raise _other_plan(root)
        return {}
    first, *lines = (root / JOURNAL).read_text(encoding="utf-8").split("\n")
    if first != mark:
        raise _other_plan(root)
    done = {}
    for line in lines[:-1]:  # what follows the last line's end was cut off by a kill
        record = json.loads(line)
        file = root / FILES / record["file"]
        if file.is_file() and file.stat().st_size == record["bytes"] and hash_file(file) == record["xxh3"]:
            tensors = {
                n: TensorInfo(**t | {"shape": tuple(t["shape"])}) for n, t in record["tensors"].items()
            }
            done[record["file"]] = FileInfo(record["bytes"], record["xxh3"], tensors)
    return done


def _other_plan(root: Path) -> RecipeError:
    return RecipeError(
        "an unfinished folder of another command is in the way",
        where=str(root),
        fix="run that command again to finish it, or remove the folder",
    )


def _start_journal(root: Path, mark: str, done: Mapping[str, FileInfo]) -> None:
    """The journal with the shards that are kept; every other file is removed."""
    records = [json.dumps({"file": file, **asdict(info)}) for file, info in done.items()]
    write_atomic(root / JOURNAL, "".join(f"{line}\n" for line in [mark, *records]).encode())
    with disk_errors(root):
        make_dirs(root / FILES)
        for child in (root / FILES).iterdir():
            if child.name not in done:
                child.unlink()


def _check_space(out: Path, size: int) -> None:
    free = free_bytes(out)
    if free < size + HEADROOM:
        raise DiskError(
            "Not enough space for the new folder",
            where=str(out),
            why=f"{human_bytes(size)} left to write, {human_bytes(free)} free",
            fix="free some space or write to a larger disk; the same command continues",
        )
