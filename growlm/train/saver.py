"""Saving while training goes on: a copy of the state in host memory at once, the disk in the background.

    begin     all ranks, between two steps: a folder, and copies of this rank's tensors; blocks for the copy
    thread    writes, hashes and syncs this rank's files
    advance   all ranks, when all have written: rank 0 learns what there is
    thread    on rank 0 gives the checkpoint its name, and removes what is too old
    advance   all ranks, when that is done: all learn the path

A checkpoint holds the state as it was at `begin`. Until it has its name it does not exist: a kill before
that leaves the one before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Self

import torch
from torch import Tensor

from growlm.checkpoint.store import CheckpointStore
from growlm.parallel.world import World
from growlm.plan.pieces import Piece
from growlm.train.joint import Joint


@dataclass(frozen=True)
class Shard:
    """What this rank writes of one tensor.

    `shape` is that of the whole tensor; `values`, of the piece's shape, may be a view of training memory.
    """

    piece: Piece
    shape: tuple[int, ...]
    values: Tensor


Shards = Mapping[str, Mapping[str, Shard]]
"""file -> tensor name -> shard; wider dtypes first."""


@dataclass(frozen=True)
class Saved:
    """A finished save: how long this rank stood still for it, how long the work took, the files' size.

    `seconds` does not count the time between the last byte and `finish`.
    """

    step: int
    path: Path
    blocked_seconds: float
    seconds: float
    bytes: int


@dataclass(frozen=True)
class _Done:
    """What the thread has done, and when; the name and the size of the checkpoint once it is committed."""

    at: float
    name: str = ""
    bytes: int = 0


@dataclass
class _Save:
    """A save under way. `work` is what the thread does now, since `since`; seconds are up to then."""

    step: int
    joint: Joint
    fields: dict[str, Any]
    work: Future[_Done]
    since: float
    blocked: float
    seconds: float = 0.0
    committing: bool = False


class Saver:
    """Saves a run's checkpoints, one at a time; a context manager that gives up a save that is not finished.

    It keeps a copy of this rank's part of the state in (on CUDA: pinned) host memory, for the next save.
    """

    def __init__(self, store: CheckpointStore, world: World) -> None:
        self._store, self._world = store, world
        self._buffers: dict[tuple[str, str], Tensor] = {}
        self._stream = torch.cuda.Stream(world.device) if world.device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, "save")
        self._gone = Event()
        self._save: _Save | None = None

    @property
    def pending(self) -> bool:
        """Whether a save was begun and is not finished."""
        return self._save is not None

    def is_written(self) -> bool:
        """Whether `advance` will not wait for this rank: its thread is done, or failed; asks no one."""
        return self._save is None or self._save.work.done()

    def begin(self, step: int, files: Shards, fields: Mapping[str, Any]) -> Saved | None:
        """Start a save of these shards; all ranks call it. Returns the save that it had to finish first.

        `fields` are those of the manifest; they count on rank 0. Tensors and fields may change once it
        returns: on CUDA, by what is enqueued on the current stream.

        Raises:
            DiskError: not enough space, or the folder cannot be written; or the save before could not be
                finished, then this one is not begun.
        """
        before = self.finish() if self.pending else None
        started = time.perf_counter()
        sizes = {file: sum(s.values.nbytes for s in shards.values()) for file, shards in files.items()}
        joint = Joint.begin(self._store, self._world, step, sizes)
        with ExitStack() as stack:
            stack.callback(joint.discard)
            with self._world.together():
                copies, ready = self._snapshot({file: files[file] for file in joint.parts})
                kept = deepcopy(dict(fields))
            stack.pop_all()
        work = self._thread.submit(_write, joint, copies, ready, self._go_on)
        self._save = _Save(step, joint, kept, work, started, time.perf_counter() - started)
        return before

    def advance(self) -> Saved | None:
        """Take a save one step further, after waiting for the threads of all ranks; all ranks call it.

        The first time rank 0's thread begins to commit, the second time the save is finished and returned.

        Raises:
            DiskError: on any rank; nothing is left of the save, and the next one may succeed.
            ValueError: no save was begun.
        """
        if self._save is None:
            raise ValueError("no save was begun")
        save, self._save, entered = self._save, None, time.perf_counter()
        with ExitStack() as stack:
            stack.callback(save.joint.discard)
            with self._world.together():
                done = save.work.result()
            save.seconds += done.at - save.since
            if not save.committing:
                save.joint.collect()
                save.since, save.committing = time.perf_counter(), True
                save.work = self._thread.submit(_commit, self._store, save.joint, save.fields)
                self._save = save
            name, size = self._world.exchange([done.name, done.bytes])[0]
            stack.pop_all()
        save.blocked += time.perf_counter() - entered
        if self._save:
            return None
        return Saved(save.step, self._store.folder / name, save.blocked, save.seconds, size)

    def finish(self) -> Saved:
        """Wait until the save is whole and has its name; all ranks call it. Raises what `advance` does."""
        while not (saved := self.advance()):
            pass
        return saved

    def release(self) -> None:
        """Let go of the memory of the copies, between saves; the next one gets it again."""
        self._buffers = {}

    def close(self) -> None:
        """Give up a save that is not finished, and let go of the memory; needs no other rank."""
        self._gone.set()
        self._thread.shutdown()
        if self._save:
            self._save.joint.discard()
        self._save, self._buffers = None, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _snapshot(self, files: Shards) -> tuple[Shards, torch.cuda.Event | None]:
        """The shards with their values in host memory, and on CUDA the event that they are there."""
        if self._stream is None:
            return self._copy(files), None
        training = torch.cuda.current_stream(self._world.device)
        self._stream.wait_stream(training)
        with torch.cuda.stream(self._stream):
            copies = self._copy(files)
        ready = torch.cuda.Event(blocking=True)
        ready.record(self._stream)
        training.wait_event(ready)  # the next step must not write into what is still being read
        return copies, ready

    @torch.no_grad()
    def _copy(self, files: Shards) -> Shards:
        """Copy every shard into the buffer of its tensor; on CUDA, without waiting for it."""
        old, self._buffers = self._buffers, {}
        copies: dict[str, dict[str, Shard]] = {}
        for file, shards in files.items():
            copies[file] = {}
            for name, shard in shards.items():
                buffer = _buffer(old.pop((file, name), None), shard.values)
                buffer.copy_(shard.values, non_blocking=True)
                self._buffers[file, name] = buffer
                copies[file][name] = replace(shard, values=buffer)
        return copies

    def _go_on(self, _: int) -> None:
        """Called while files are written: raises CancelledError once nobody waits for them."""
        if self._gone.is_set():
            raise CancelledError


def _buffer(old: Tensor | None, values: Tensor) -> Tensor:
    """Host memory for a copy of the values: the old one if it is of their kind."""
    if old is not None and (old.shape, old.dtype) == (values.shape, values.dtype):
        return old
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)


def _write(
    joint: Joint, files: Shards, ready: torch.cuda.Event | None, on_bytes: Callable[[int], None]
) -> _Done:
    """Write this rank's files and wait until they are on the disk. Raises DiskError."""
    if ready is not None:
        ready.synchronize()
    for file, shards in files.items():
        entries = {name: (s.values.dtype, s.piece, s.shape) for name, s in shards.items()}
        with joint.writer(file, entries, on_bytes) as writer:
            for shard in shards.values():
                writer.write(shard.values)
    return _Done(time.perf_counter())


def _commit(store: CheckpointStore, joint: Joint, fields: Mapping[str, Any]) -> _Done:
    """Give the checkpoint its name and remove what is too old, on rank 0. Raises DiskError."""
    if joint.pending is None:
        return _Done(time.perf_counter())
    path = joint.pending.commit(**fields)
    store.prune()
    return _Done(time.perf_counter(), path.name, sum(file.stat().st_size for file in path.iterdir()))
