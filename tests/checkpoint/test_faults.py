"""A kill or a full disk at every fault point, and a kill at every system call, of save, replace and prune."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from growlm.checkpoint.store import CheckpointStore
from growlm.testing.faults import VARIABLE, fault_point

from .helpers import FIELDS, assert_holds, in_child, save

ROOT = Path(__file__).resolve().parents[2]
POINTS = sorted(
    {
        point
        for source in (ROOT / "growlm" / "checkpoint").glob("*.py")
        for point in re.findall(r'fault_point\("([a-z_.]+)"\)', source.read_text())
    }
)


def save_new(folder: Path) -> None:
    save(CheckpointStore(folder, keep=2), 3)


def save_again(folder: Path) -> None:
    save(CheckpointStore(folder, keep=2), 2)


def save_over_leftover(folder: Path) -> None:
    (folder / "step-00000002").rename(folder / "step-00000002-old")
    save(CheckpointStore(folder, keep=2), 2)
    save(CheckpointStore(folder, keep=2), 2)


def save_and_prune(folder: Path) -> None:
    store = CheckpointStore(folder, keep=1)
    save(store, 2)
    store.prune()


ACTIONS = [save_new, save_again, save_over_leftover, save_and_prune]


def prepared(folder: Path) -> Path:
    """A store that holds steps 1 and 2."""
    shutil.rmtree(folder, ignore_errors=True)
    for step in (1, 2):
        save(CheckpointStore(folder, keep=9), step)
    return folder


def assert_old_or_new(folder: Path) -> None:
    """Every checkpoint is whole, the newest is the old or the new one, and the next save and prune work."""
    store = CheckpointStore(folder, keep=1)
    entries = store.checkpoints()
    assert [store.verify(entry.path) for entry in entries] == [[]] * len(entries)
    assert entries[0].step in (2, 3)
    assert_holds(folder, entries[0].step)
    save(store, 4)
    store.prune()
    assert [child.name for child in folder.iterdir()] == ["step-00000004"]


def test_the_points_are_where_they_should_be() -> None:
    assert POINTS == [
        "checkpoint.after_file",
        "checkpoint.after_manifest",
        "checkpoint.after_mkdir",
        "checkpoint.after_rename",
        "checkpoint.before_manifest",
        "checkpoint.before_rename",
        "checkpoint.between_renames",
        "checkpoint.write",
        "prune.after_remove",
        "prune.after_rename",
        "prune.before_rename",
    ]


def hit(action: Callable[[Path], None], fault: str, folder: Path, code: int) -> int:
    """Arm a fault at every passage in turn, until the action gets through; how often it struck."""
    for passage in range(1, 100):
        prepared(folder)
        result = in_child(lambda: action(folder), f"{fault}@{passage}")
        if result == 0:
            return passage - 1
        assert result == code
        if code == 76:
            assert not list(folder.glob(".tmp-*"))
        assert_old_or_new(folder)
    raise AssertionError("the fault never stops striking")


FAST_POINTS = [pytest.param(p, marks=pytest.mark.slow) if p == "checkpoint.write" else p for p in POINTS]
"""A save writes dozens of times; the kill at every system call is fast."""


@pytest.mark.parametrize("point", FAST_POINTS)
@pytest.mark.parametrize(("kind", "code"), [("kill", -9), ("enospc", 76)])
def test_a_fault_at_every_passage_leaves_old_or_new(tmp_path: Path, point: str, kind: str, code: int) -> None:
    strikes = [hit(action, f"{point}:{kind}", tmp_path / "checkpoints", code) for action in ACTIONS]
    assert sum(strikes) > 0, "the point was never passed"


SCRIPT = """
import json, sys
from pathlib import Path
from growlm.checkpoint.store import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), keep=1)
for step in (2, 3):
    with store.begin(step) as pending:
        pending.path("notes.json").write_text("new")
        pending.commit(**json.loads(sys.argv[2]))
store.prune()
"""


@pytest.fixture
def strace() -> list[str]:
    """The start of a command line that runs a program under strace."""
    command = ["strace", "-o", os.devnull]
    if not shutil.which("strace") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed or not allowed here")
    return command


@pytest.mark.parametrize("call", ["mkdir", "write", "fsync", "rename", "unlinkat", "rmdir"])
def test_a_kill_at_every_system_call_leaves_old_or_new(tmp_path: Path, strace: list[str], call: str) -> None:
    folder = tmp_path / "checkpoints"
    program = [sys.executable, "-B", "-c", SCRIPT, str(folder), json.dumps(FIELDS)]
    passage, code = 0, -9
    while code:
        prepared(folder)
        passage += 1
        inject = [f"-etrace={call}", f"-einject={call}:signal=KILL:when={passage}"]
        code = subprocess.run([*strace, *inject, *program]).returncode
        assert code in (0, -9, 137)
        entries = CheckpointStore(folder, keep=2).checkpoints()
        assert [CheckpointStore.verify(entry.path) for entry in entries] == [[]] * len(entries)
        assert entries[0].step in (2, 3)
    assert passage > 1, "the call was never made"


def test_fault_points_cost_nothing_and_obey_their_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    fault_point("a")
    monkeypatch.setenv(VARIABLE, "a:enospc@2")
    fault_point("a.b")
    fault_point("a")
    with pytest.raises(OSError, match="No space left"):
        fault_point("a")
    fault_point("a")
    monkeypatch.setenv(VARIABLE, "a:explode")
    with pytest.raises(ValueError, match="'kill' or 'enospc'"):
        fault_point("a")
