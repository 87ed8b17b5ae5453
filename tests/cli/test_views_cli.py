"""report, compare and watch as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from growlm.train.record import Recorder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    with Recorder(folder / "metrics.jsonl", 1) as recorder:
        recorder.append("start", step=0, name="tiny", price_per_hour=1.0, currency="EUR")
        recorder.append(
            "stage", step=0, stage=0, name="only", shape={"d_model": 8, "n_layers": 1}, parameters=64
        )
        for n in range(1, 5):
            recorder.append(
                "step", step=n, stage=0, tokens=8 * n, flops=1e6 * n, train_seconds=1.0 * n, loss=5.0 / n
            )
            recorder.append("valid", step=n, stage=0, tokens=8 * n, losses={"en": 6.0 / n})
        recorder.append("end", step=4, status="done")
    return folder


def growlm(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "growlm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_report(run: Path, tmp_path: Path) -> None:
    done = growlm("report", run)
    assert (done.returncode, done.stdout.strip()) == (0, str(run / "report.html"))
    done = growlm("report", run, "--out", tmp_path / "r.html")
    assert done.returncode == 0
    assert (tmp_path / "r.html").read_text(encoding="utf-8") != ""
    data = json.loads(growlm("report", run, "--json").stdout)
    assert data["totals"]["step"] == 4
    assert data["valid"]["en"] == [[1, 2, 3, 4], [6.0, 3.0, 2.0, 1.5]]


def test_compare(run: Path, tmp_path: Path) -> None:
    done = growlm("compare", run, run, "--html", tmp_path / "c.html")
    assert done.returncode == 0
    assert "+0.0000" in done.stdout
    assert (tmp_path / "c.html").exists()
    data = json.loads(growlm("compare", run, run, "--json").stdout)
    assert [(p["axis"], p["a"], p["delta"]) for p in data["points"]] == [
        (axis, 1.5, 0.0) for axis in ("tokens", "flops", "seconds")
    ]


@pytest.mark.parametrize("verb", ["report", "watch", "compare"])
def test_no_such_run(verb: str, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    done = growlm(verb, absent, *([absent] if verb == "compare" else []))
    assert done.returncode == 2
    assert "no such run" in done.stderr
    assert str(absent) in done.stderr
    assert "Traceback" not in done.stderr


def test_watch_until_ctrl_c(run: Path) -> None:
    # A shell's background job starts with Ctrl-C ignored, and so would its children.
    ctrl_c = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'growlm'"
    )
    program = f"{ctrl_c}; from growlm.cli.main import main; main()"
    command = [sys.executable, "-u", "-c", program, "watch", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().split()[-1]
        assert "ssh -N -L" in process.stdout.readline()
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"tiny" in answer.read()
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "run goes on" in out


def test_views_never_import_torch(run: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from growlm.report import compare, render, server, tables\n"
        "from growlm.cli import compare, report, watch\n"
        f"render.render(Path({str(run)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
