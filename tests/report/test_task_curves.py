"""Tasks measured during a run: their curves, how two runs compare, and records that are no scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import draw, needs_chromium
from fake_run import FakeRun

from growlm.report.compare import compare, compare_page
from growlm.report.render import write_page, write_report
from growlm.report.summary import summary
from growlm.train.record import Recorder

STEPS = (40, 80, 120)


def run(folder: Path, gain: float) -> Path:
    """A finished run whose two tasks rise by `gain` each time."""
    folder.mkdir()
    FakeRun(folder, per_stage=40).write()
    with Recorder(folder / "metrics.jsonl", 1) as recorder:
        for i, step in enumerate(STEPS):
            scores = [score("hellaswag, acc_norm", 0.25 + gain * i, 0.25), score("counting", gain * i, None)]
            recorder.append("tasks", step=step, scores=[*scores, "rubbish", {"task": "empty"}])
        recorder.append("tasks", step=STEPS[-1], scores=None)
    return folder


def score(task: str, value: float, chance: float | None) -> dict[str, Any]:
    return {
        "task": task,
        "value": value,
        "low": value - 0.05,
        "high": value + 0.05,
        "items": 100,
        "chance": chance,
        "cut": 7,
    }


def test_curves_are_the_recorded_scores(tmp_path: Path) -> None:
    tasks = summary(run(tmp_path / "a", 0.125))["tasks"]
    assert tasks["hellaswag, acc_norm"]["value"] == ([*STEPS], [0.25, 0.375, 0.5])
    assert tasks["hellaswag, acc_norm"]["high"] == ([*STEPS], [0.3, 0.425, 0.55])
    assert (tasks["counting"]["chance"], tasks["counting"]["items"], tasks["counting"]["cut"]) == (
        None,
        100,
        7,
    )


def test_runs_compare_by_their_last_scores(tmp_path: Path) -> None:
    compared = compare(run(tmp_path / "a", 0.125), run(tmp_path / "b", 0.25))
    assert [(t["task"], t["chance"], t["a"][0], t["b"][0]) for t in compared["tasks"]] == [
        ("hellaswag, acc_norm", 0.25, 0.5, 0.75),
        ("counting", None, 0.25, 0.5),
    ]
    assert compared["tasks"][0]["a"] == pytest.approx([0.5, 0.45, 0.55])


@needs_chromium
def test_pages_show_them(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", 0.125), run(tmp_path / "b", 0.25)
    report = draw(write_report(a))
    compared = draw(write_page(compare_page(compare(a, b)), tmp_path / "compared.html"))
    assert report.console == compared.console == []
    for text in ("hellaswag, acc_norm, 100 items", "7 prompts do not fit", "50.0"):
        assert text in report.body
    assert "75.0" in compared.body
    for wrong in ("undefined", "NaN", "[object"):
        assert wrong not in report.body + compared.body
