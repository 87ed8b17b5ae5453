"""Two runs meet where both have been, by interpolation."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import draw, needs_chromium
from fake_run import FakeRun

from growlm.report.compare import compare, compare_page
from growlm.train.record import Recorder


def straight(
    folder: Path, *, slope: float, last: int, tokens: int, flops: float, sources: bool = True
) -> Path:
    """A run whose losses fall in a straight line over step."""
    folder.mkdir()
    with Recorder(folder / "metrics.jsonl", 1) as recorder:
        recorder.append("start", step=0, name=folder.name)
        recorder.append(
            "stage", step=0, stage=0, name="s", shape={"d_model": 8, "vocab_size": 100}, tokens=1000
        )
        for n in range(1, last + 1):
            recorder.append(
                "step",
                step=n,
                stage=0,
                tokens=n * tokens,
                flops=n * flops,
                train_seconds=n * 1.0,
                loss=10 - slope * n,
            )
            if sources and n % 10 == 0:
                recorder.append("valid", step=n, stage=0, tokens=n * tokens, losses={"en": 10 - slope * n})
    return folder


def test_equal_tokens_flops_and_time(tmp_path: Path) -> None:
    a = straight(tmp_path / "a", slope=0.01, last=100, tokens=100, flops=1e9)
    b = straight(tmp_path / "b", slope=0.03, last=70, tokens=50, flops=2e9)
    points = {p["axis"]: p for p in compare(a, b)["points"]}
    # tokens: both reach 3500 (a at step 35, b at 70); FLOPs: 1e11 (100, 50); time: 70 s (70, 70)
    for axis, at, step_a, step_b in (
        ("tokens", 3500, 35, 70),
        ("flops", 1e11, 100, 50),
        ("seconds", 70, 70, 70),
    ):
        p = points[axis]
        assert p["at"] == pytest.approx(at)
        assert p["a"] == pytest.approx(10 - 0.01 * step_a)
        assert p["b"] == pytest.approx(10 - 0.03 * step_b)
        assert p["delta"] == pytest.approx(p["b"] - p["a"])
        assert p["source"] == "en"


def test_without_shared_sources_the_training_loss_speaks(tmp_path: Path) -> None:
    a = straight(tmp_path / "a", slope=0.01, last=100, tokens=10, flops=1e9)
    b = straight(tmp_path / "b", slope=0.01, last=100, tokens=10, flops=1e9, sources=False)
    comparison = compare(a, b)
    assert {p["source"] for p in comparison["points"]} == {"train"}
    assert any("no validation source" in note for note in comparison["notes"])


def test_runs_that_never_met(tmp_path: Path) -> None:
    a = straight(tmp_path / "a", slope=0.01, last=20, tokens=10, flops=1e9)
    b = straight(tmp_path / "b", slope=0.01, last=20, tokens=10_000, flops=1e9)
    assert {p["axis"] for p in compare(a, b)["points"]} == {"flops", "seconds"}
    empty = tmp_path / "empty"
    straight(empty, slope=0, last=0, tokens=1, flops=1)
    comparison = compare(a, empty)
    assert comparison["points"] == []
    assert any("no losses" in note for note in comparison["notes"])


@needs_chromium
def test_the_page_of_two_runs(tmp_path: Path) -> None:
    a = FakeRun(tmp_path / "a", per_stage=40, name="grown").write()
    b = FakeRun(tmp_path / "b", per_stage=30, name="other").write()
    page = tmp_path / "compare.html"
    page.write_text(compare_page(compare(a, b)), encoding="utf-8")
    drawn = draw(page)
    assert drawn.console == []
    assert drawn.count("<polyline") == 6
    for text in ("grown and other", "Validation loss, zh-modern", "At equal cost", "tokens", "FLOPs"):
        assert text in drawn.body
