"""A folder that appears whole or not at all: written beside its place, fsynced, renamed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from growlm.data.manifest import MANIFEST
from growlm.errors import DataError, DiskError, LockError
from growlm.testing.faults import fault_point

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; when the block succeeds it becomes `out`, else it is removed.

    An `out` that was prepared before is replaced; it is put back if the process died while doing so.

    Raises:
        DataError: `out` exists and is something else.
        LockError: another process is preparing the same `out`.
        DiskError: any OSError of writing (full, read-only, failing disk).
    """
    _refuse_other(out)
    temporary, old = (out.with_name(f".{out.name}.{word}") for word in ("preparing", "replaced"))
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        lock = _lock(temporary, out)
        try:
            _put_back(old, out)
            _empty(temporary)
            yield temporary
            _sync(temporary)
            if out.exists():
                shutil.rmtree(old, ignore_errors=True)
                out.rename(old)
                fault_point("data.between_renames")
            temporary.rename(out)
            _sync_names(out.parent)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            _put_back(old, out)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except OSError as error:
        raise _disk_error(out, error) from error


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


def _put_back(old: Path, out: Path) -> None:
    if old.exists() and not out.exists():
        old.rename(out)


def _empty(folder: Path) -> None:
    """Remove what a killed preparation has left."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync_names(path)


def _sync_names(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _disk_error(out: Path, error: OSError) -> DiskError:
    full = error.errno in _FULL
    return DiskError(
        "The disk is full" if full else "The output folder cannot be written",
        where=str(out),
        why=f"{error.strerror or error}; nothing was left behind",
        fix="free some space, or name a folder on another disk"
        if full
        else "make the folder above it writable, or name another one",
    )
