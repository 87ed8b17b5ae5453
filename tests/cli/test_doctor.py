"""`growlm doctor`: what it measures is plausible, what is wrong is advised on, nothing stays behind."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from growlm.cli import probes
from growlm.cli.doctor import doctor
from growlm.cli.probes import Row, examine
from growlm.train import peak
from growlm.train.malloc import SETTINGS
from growlm.train.peak import matmul_peak_tflops


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "matmul_peak_tflops", lambda device, dtype: 1.0)  # noqa: ARG005


def test_a_healthy_folder_has_no_failure_and_stays_empty(tmp_path: Path) -> None:
    rows = {row.name: row for row in examine(tmp_path)}
    assert {"python", "torch", "cores", "memory", "disk write", "lock", "matmul cpu", "extra data"} <= set(
        rows
    )
    assert rows["lock"].state == "ok"
    assert rows["torch"].value == torch.__version__
    assert all(row.advice for row in rows.values() if row.state != "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_to_be_made_is_examined_where_it_will_be(tmp_path: Path) -> None:
    assert str(tmp_path) in next(
        row.value for row in examine(tmp_path / "a" / "b") if row.name == "disk space"
    )


def test_a_lock_that_does_not_lock_is_a_failure_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(typer.Exit) as ended:
        doctor(tmp_path, as_json=True)
    assert ended.value.exit_code == 1
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    (failed,) = [row for row in result["checks"] if row["state"] == "fail"]
    assert failed["name"] == "lock"
    assert "local disk" in failed["advice"]


def test_a_probe_that_breaks_is_a_row_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> Any:
        raise PermissionError("no writing here")

    monkeypatch.setitem(probes.PROBES, "disk", broken)
    row = next(row for row in examine(tmp_path) if row.name == "disk")
    assert row == Row(
        "disk", "fail", "PermissionError: no writing here", "choose a folder that can be written"
    )


def test_malloc_settings_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes.platform, "libc_ver", lambda: ("glibc", "2.36"))
    states = []
    for set_here in ([], list(SETTINGS)[:1], list(SETTINGS)):
        for name in SETTINGS:
            monkeypatch.delenv(name, raising=False)
        for name in set_here:
            monkeypatch.setenv(name, SETTINGS[name])
        states += [row.state for row in examine(tmp_path) if row.name == "malloc"]
    assert states == ["ok", "warn", "ok"]


def test_the_table_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        doctor(tmp_path)
    out = capsys.readouterr().out
    assert ended.value.exit_code == 0
    assert "matmul cpu" in out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_matmul_peak_is_a_speed(dtype: torch.dtype) -> None:
    assert 1e-6 < matmul_peak_tflops("cpu", dtype, seconds=0.01, size=128) < 1e3
