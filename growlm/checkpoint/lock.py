"""One owner per run folder: flock decides, the lease in the lock file says who it is."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from growlm.checkpoint.disk import disk_errors, fsync_fd, make_dirs
from growlm.errors import LockError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Lease:
    """Who holds a run folder, or held it last: `since` in unix seconds, `incarnation` counts the starts."""

    pid: int
    host: str
    boot_id: str
    since: float
    incarnation: int


class RunLock:
    """Owns a run folder while the context lasts, and makes the folder if it is missing.

    The kernel drops a flock when its process dies, so a stale lease never stands in the way. A forked
    child lets go of the file: it neither releases the lock nor outlives its parent as the owner.

    Raises, on entering:
        LockError: another run owns the folder; says who and since when. Nothing was written.
        DiskError: the folder cannot be made or written.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._fd = run_dir, -1
        self.lease: Lease | None = None
        """This process's lease, once entered."""

    def __enter__(self) -> Self:
        path = self._run_dir / "lock"
        with disk_errors(path):
            make_dirs(self._run_dir)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.register_at_fork(after_in_child=self._close)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.lease = _take(self._fd)
            except BlockingIOError:
                time.sleep(0.05)  # the owner may be writing its lease at this instant
                owner = _read(self._fd)
                self._close()
                raise _refusal(self._run_dir, owner) from None
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _take(fd: int) -> Lease:
    """Write this process's lease in one write, the former owner's starts plus one."""
    former = _read(fd)
    lease = Lease(
        pid=os.getpid(),
        host=socket.gethostname(),
        boot_id=_BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "",
        since=time.time(),
        incarnation=former.incarnation + 1 if former else 1,
    )
    line = json.dumps(asdict(lease)).encode() + b"\n"
    os.pwrite(fd, line, 0)
    os.ftruncate(fd, len(line))
    fsync_fd(fd)
    return lease


def _read(fd: int) -> Lease | None:
    """The lease in the file; None if there is none, or none that can be read."""
    try:
        return Lease(**json.loads(os.pread(fd, 4096, 0).split(b"\n")[0]))
    except (TypeError, ValueError):
        return None


def _refusal(run_dir: Path, owner: Lease | None) -> LockError:
    what = "Another run owns this folder"
    if owner is None:
        return LockError(what, where=str(run_dir), why="its owner has not said yet who it is")
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.since))
    return LockError(
        what,
        where=str(run_dir),
        why=f"host {owner.host}, pid {owner.pid}, since {since} ({time.time() - owner.since:.0f} s)",
        fix=f"wait for it, stop it on {owner.host} with `kill {owner.pid}`, or name another run folder",
    )
