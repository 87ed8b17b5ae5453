"""The record survives kill -9, torn lines and a full disk, and readers see one history."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growlm.errors import DiskError, RecipeError
from growlm.train.record import Recorder, RecordReader, next_incarnation, read_record


def steps(records: list[dict]) -> list[tuple[int, int]]:
    return [(r["incarnation"], r["step"]) for r in records if r["kind"] == "step"]


def test_every_point_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    program = (
        "import sys, os, signal; from pathlib import Path; from growlm.train.record import Recorder\n"
        "r = Recorder(Path(sys.argv[1]), 1)\n"
        "for n in range(1, 501): r.append('step', step=n, loss=1 / n)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert [(r["step"], r["loss"]) for r in read_record(path)] == [(n, 1 / n) for n in range(1, 501)]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_round_trip_bit_for_bit(value: float) -> None:
    with TemporaryDirectory() as folder, Recorder(Path(folder) / "m", 1) as recorder:
        recorder.append("step", step=1, loss=value)
        assert read_record(recorder.path)[0]["loss"].hex() == value.hex()


def test_values_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    fields = {
        "step": 1,
        "loss": 0.1 + 0.2,
        "losses": {"en": 5e-324},
        "text": '春眠\u2028不覺\n曉 "x"',
        "cost": None,
    }
    with Recorder(path, 3) as recorder:
        recorder.append("sample", **fields)
    (record,) = read_record(path)
    assert record | fields == record
    assert (record["kind"], record["incarnation"]) == ("sample", 3)
    assert record["time"] > 1e9


def test_nan_and_infinities_become_null_and_half_characters_survive(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Recorder(path, 1) as recorder:
        recorder.append("step", step=1, loss=float("nan"), deep={"a": [float("inf"), 1.5]}, text="cut \ud83d")
    (record,) = read_record(path)
    assert record["loss"] is None
    assert record["deep"] == {"a": [None, 1.5]}
    assert record["text"] == "cut \ud83d"


def test_torn_last_line_is_ignored_then_repaired(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Recorder(path, 1) as recorder:
        recorder.append("step", step=1)
    with path.open("ab") as file:
        file.write(b'{"kind":"step","step":2,"incarn')
    assert steps(read_record(path)) == [(1, 1)]
    with Recorder(path, 2) as recorder:
        recorder.append("resume", step=1, path="checkpoints/1")
        recorder.append("step", step=2)
    assert steps(read_record(path)) == [(1, 1), (2, 2)]


def test_lines_that_are_no_records_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\x00\x00\n[1]\n17\n{"kind":"step"}\n\n{"kind":"event","incarnation":1,"time":0}\n')
    assert [r["kind"] for r in read_record(path)] == ["event"]


def test_resume_supersedes_what_it_repeats(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Recorder(path, 1) as recorder:
        recorder.append("start", step=0)
        for n in range(1, 7):
            recorder.append("step", step=n)
        recorder.append("valid", step=4, losses={})
        recorder.append("valid", step=6, losses={})
        recorder.append("event", step=6, level="info", message="kept")
    with Recorder(path, 2) as recorder:
        recorder.append("start", step=0)
        recorder.append("resume", step=4, path="checkpoints/4")
        recorder.append("step", step=5)
    records = read_record(path)
    assert steps(records) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5)]
    assert [r["step"] for r in records if r["kind"] == "valid"] == [4]
    assert [r["kind"] for r in records if r["step"] == 6] == ["event"]
    with Recorder(path, 3) as recorder:  # resumed from an older checkpoint, because the newer was damaged
        recorder.append("resume", step=2, path="checkpoints/2")
        recorder.append("step", step=3)
    assert steps(read_record(path)) == [(1, 1), (1, 2), (3, 3)]


def test_a_start_that_died_before_it_resumed_drops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Recorder(path, 1) as recorder:
        recorder.append("step", step=1)
    with Recorder(path, 2) as recorder:
        recorder.append("start", step=0)
    assert steps(read_record(path)) == [(1, 1)]
    with Recorder(path, 3) as recorder:  # no checkpoint yet: begins anew
        recorder.append("step", step=1)
    assert steps(read_record(path)) == [(3, 1)]


def test_reader_follows_a_growing_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Recorder(path, 1) as recorder:
        for n in range(1, 4):
            recorder.append("step", step=n)
    text = path.read_bytes()
    path.write_bytes(b"")
    reader = RecordReader(path)
    for cut in range(len(text)):  # one byte at a time: never a wrong line, never a lost one
        with path.open("ab") as file:
            file.write(text[cut : cut + 1])
        assert len(reader.read()) == text[: cut + 1].count(b"\n")
    assert steps(reader.records) == [(1, 1), (1, 2), (1, 3)]


def test_full_disk_never_stops_training_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, room, write = tmp_path / "metrics.jsonl", [150], os.write

    def limited(fd: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, data[: room[0]])
        room[0] -= written
        return written

    with Recorder(path, 1, backlog=5) as recorder:
        monkeypatch.setattr("growlm.train.record.os.write", limited)
        for n in range(1, 6):
            recorder.append("step", step=n)
        assert capsys.readouterr().err.count("No space left") == 1
        assert len(steps(read_record(path))) < 5
        room[0] = 10**6
        recorder.append("step", step=6)
    assert steps(read_record(path)) == [(1, n) for n in range(1, 7)]


def test_a_long_outage_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Recorder(tmp_path / "m", 1, backlog=3) as recorder:
        with monkeypatch.context() as patch:
            patch.setattr("growlm.train.record.os.write", full)
            for n in range(1, 9):
                recorder.append("step", step=n)
        recorder.append("step", step=9)
    assert steps(read_record(tmp_path / "m")) == [(1, 7), (1, 8), (1, 9)]


def test_next_incarnation_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert next_incarnation(path) == 1
    with Recorder(path, 4) as recorder:
        recorder.append("start", step=0)
    assert next_incarnation(path) == 5
    with pytest.raises(RecipeError, match="no record"):
        read_record(tmp_path / "absent")
    with pytest.raises(DiskError):
        Recorder(tmp_path / "no" / "folder", 1)
