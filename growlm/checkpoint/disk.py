"""Durable writes, free space and hashes; the one place where OSError becomes DiskError."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from growlm.errors import DiskError

CHUNK = 8 << 20
"""Bytes hashed and written at a time: small enough to stay in cache between the two."""

_FIXES = {
    errno.ENOSPC: "free some space or move the run folder to a larger disk; the same command continues",
    errno.EDQUOT: "free some of your quota; the same command continues",
    errno.EROFS: "the file system is read-only: use another folder, or remount it for writing",
    errno.EACCES: "make the folder writable for this user, or use another one",
    errno.EPERM: "make the folder writable for this user, or use another one",
    errno.EIO: "the disk is failing: copy the run folder to another one and continue there",
}


@contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Raise every OSError of the block as a DiskError that says where, how much is free, what to do.

    `needed` is the size in bytes of what was being written, if known.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why += f"; {human_bytes(free_bytes(path))} free"
            why += f", {human_bytes(needed)} needed" if needed else ""
        fix = _FIXES.get(error.errno or 0, "check the folder and the disk; the same command continues")
        raise DiskError("A disk operation failed", where=str(path), why=why, fix=fix) from error


def start_writeback(fd: int) -> None:
    """Ask the disk to begin writing what the system holds of an open file; a hint, which does not wait."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def fsync_fd(fd: int) -> None:
    """Wait until the file is on the disk itself (on macOS plain fsync stops at the drive's cache)."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full)


def fsync_file(path: Path) -> None:
    """Make the content of a file durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fsync_fd(fd)
    finally:
        os.close(fd)


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable: what was created, renamed or removed in it. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(path: Path) -> None:
    """Create a folder and its missing parents, durably; fine if it is there. Raises OSError."""
    if not path.is_dir():
        make_dirs(path.parent)
        path.mkdir(exist_ok=True)
        fsync_dir(path.parent)


def write_all(fd: int, data: memoryview | bytes) -> None:
    """Write all of it, however short the single writes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_durable(path: Path, data: bytes) -> None:
    """Create a new file with this content and wait until it is on the disk. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(fd, data)
        fsync_fd(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file: after a kill or a power cut it is the old one or the new one, whole.

    Raises:
        DiskError: it could not be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with disk_errors(path, len(data)):
        try:
            temporary.unlink(missing_ok=True)
            write_durable(temporary, data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write where `path` is, or will be once its parents are made."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def hash_file(path: Path) -> str:
    """xxh3-128 of a file as 32 hex digits, read in chunks. Raises OSError."""
    digest, buffer = xxhash.xxh3_128(), bytearray(CHUNK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def human_bytes(count: float) -> str:
    """`12.3 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
