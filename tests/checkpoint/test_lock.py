import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from growlm.checkpoint.lock import RunLock
from growlm.errors import DiskError, LockError

from .helpers import in_child

HOLD = """
import sys, time
from pathlib import Path
from growlm.checkpoint.lock import RunLock
from growlm.errors import LockError
try:
    with RunLock(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.read()
except LockError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=pipe, stdout=pipe, text=True)


def test_a_second_run_learns_who_owns_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    with RunLock(folder) as lock:
        assert lock.lease is not None
        before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
        second = start(folder)
        said, _ = second.communicate()
        assert second.returncode == 77
        for fact in (lock.lease.host, f"pid {lock.lease.pid}", time.strftime("%Y-%m-%d"), str(folder)):
            assert fact in said
        assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before
        with pytest.raises(LockError), RunLock(folder):
            pass
    with RunLock(folder):
        pass


def test_of_many_starts_one_wins(tmp_path: Path) -> None:
    runs = [start(tmp_path) for _ in range(8)]
    said = [run.stdout.readline() for run in runs if run.stdout]
    assert said.count("mine\n") == 1
    for run in runs:
        run.communicate()
    assert sorted(run.returncode for run in runs) == [0] + [77] * 7


def test_a_killed_owner_leaves_no_obstacle_and_the_count_goes_on(tmp_path: Path) -> None:
    run = start(tmp_path)
    assert run.stdout is not None
    assert run.stdout.readline() == "mine\n"
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert json.loads((tmp_path / "lock").read_text())["pid"] == run.pid
    with RunLock(tmp_path) as lock:
        assert lock.lease is not None
        assert (lock.lease.pid, lock.lease.incarnation) == (os.getpid(), 2)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"pid": os.getpid(), "host": "h", "boot_id": "old", "since": 1.0, "incarnation": 4}),
        "",
        "{torn",
        "[1]",
        "\0" * 100,
        "x" * 9000,
    ],
    ids=["same pid before a reboot", "empty", "torn", "other", "zeros", "long"],
)
def test_a_stale_or_damaged_lease_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with RunLock(tmp_path) as lock:
        assert lock.lease is not None
        assert lock.lease.incarnation == (5 if "old" in content else 1)
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_an_owner_that_has_not_signed_yet_is_respected(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        (tmp_path / "lock").write_text("")
        with pytest.raises(LockError, match="has not said"), RunLock(tmp_path):
            pass


def test_a_forked_child_neither_releases_nor_inherits_the_lock(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        assert in_child(lambda: lock.__exit__()) == 0
        second = start(tmp_path)
        second.communicate()
        assert second.returncode == 77
    ready, go = os.pipe()

    def own_then_die_with_a_child_alive() -> None:
        RunLock(tmp_path).__enter__()
        if os.fork() == 0:
            os.close(go)
            os.read(ready, 1)  # lives on until the test lets it go
            os._exit(0)

    try:
        assert in_child(own_then_die_with_a_child_alive) == 0
        with RunLock(tmp_path):
            pass
    finally:
        os.close(go)
        os.close(ready)


def test_a_folder_that_cannot_be_made_or_written_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError) as raised, RunLock(tmp_path / "file" / "run"):
        pass
    assert raised.value.exit_code == 76
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o500)

    def enter() -> None:
        if os.getuid() == 0:
            os.chdir(tmp_path)
            os.setuid(65534)
        with RunLock(Path("run") if os.getuid() == 65534 else tmp_path / "run"):
            pass

    assert in_child(enter) == 76
