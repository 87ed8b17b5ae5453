"""A folder that appears whole or not at all: made in a work folder beside its place, fsynced, renamed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from growlm.data.manifest import MANIFEST
from growlm.data.pipeline.work import sync
from growlm.errors import DataError, DiskError, LockError
from growlm.testing.faults import fault_point

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def work_folder(out: Path, key: str, say: Callable[[str], None] = lambda _: None) -> Iterator[Path]:
    """Yield the work folder of `out` for the plan `key`: what an earlier start with that key has left in it.

    What one with another key has left is removed, which `say` is told; so is all of it when the block
    succeeds. After a kill or any error it stays, to go on from: the key is of all that decides a byte, so
    what was done for it stays right.

    Raises:
        DataError: `out` exists and is something else.
        LockError: another process is preparing the same `out`.
        DiskError: any OSError (full, read-only, failing disk), with the file if the system says it.
    """
    out = out.resolve()  # of a link, its target is replaced
    _refuse_other(out)
    place = _beside(out, "preparing")
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = _lock(place, out)
        try:
            _put_back(out)
            for other in place.iterdir():
                if other.name != key:
                    say("an earlier start had other files or options: what it did is removed")
                    shutil.rmtree(other) if other.is_dir() else other.unlink()
            (place / key).mkdir(exist_ok=True)
            yield place / key
            shutil.rmtree(place, ignore_errors=True)  # the last job of a cluster may still log there
        finally:
            for folder in (place / key, place):
                with suppress(OSError):  # there is something in it, or nothing of it left
                    folder.rmdir()
            os.close(lock)
    except OSError as error:
        raise _disk_error(out, place, error) from error


def replace(out: Path, ready: Path) -> None:
    """Make `ready` the folder `out`; one that is there already is replaced.

    It is put back by the next start if the process dies in between. Raises OSError.
    """
    out = out.resolve()
    old = _beside(out, "replaced")
    for path in [*ready.rglob("*"), ready]:
        sync(path)
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        fault_point("data.between_renames")
    ready.rename(out)
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _beside(out: Path, word: str) -> Path:
    return out.with_name(f".{out.name}.{word}")


def _refuse_other(out: Path) -> None:
    if not out.exists() or (out / MANIFEST).is_file() or (out.is_dir() and not any(out.iterdir())):
        return
    raise DataError(
        "The output exists and was not written by `growlm data prepare`",
        where=str(out),
        why=f"it has no {MANIFEST}; nothing of it was touched",
        fix="name a new folder, or move this one away",
    )


def _lock(folder: Path, out: Path) -> int:
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise LockError(
            "Another process is preparing this folder",
            where=str(out),
            fix="wait for it, or name another folder",
        ) from error
    return fd


def _put_back(out: Path) -> None:
    """Undo the first half of a `replace` that was killed."""
    old = _beside(out, "replaced")
    if old.exists() and not out.exists():
        old.rename(out)


def _disk_error(out: Path, place: Path, error: OSError) -> DiskError:
    kept = place.exists()
    if error.errno in _FULL:
        what = "The disk is full"
        fix = (
            "free some space and run the same command again, which goes on where it stopped; "
            "or name a folder on another disk"
        )
    elif not kept or error.errno in _FORBIDDEN:
        what = "The output folder cannot be written"
        fix = "make the folder above it writable, or name another one"
    else:
        what = "A file of the preparation cannot be read or written"
        fix = "run the same command again, which goes on where it stopped"
    after = f"what is done is kept in {place}" if kept else "nothing was left behind"
    return DiskError(
        what, where=str(error.filename or out), why=f"{error.strerror or error}; {after}", fix=fix
    )
