"""The report draws itself in a browser, asks nobody for anything, and runs nothing that a run contains."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser import draw, needs_chromium
from fake_run import CARD, FakeRun
from hypothesis import given
from hypothesis import strategies as st

from growlm.errors import DiskError
from growlm.report import render as module
from growlm.report.compare import compare, compare_page
from growlm.report.render import embedded_json, render, write_report
from growlm.train.record import Recorder

ATTACK = (
    "</script><script>document.title='pwned'</script><img src=x onerror=document.title='pwned'>\u2028$style"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun(tmp_path_factory.mktemp("run"), per_stage=80).write(killed_at=130)


@needs_chromium
def test_the_report_shows_the_run(run: Path) -> None:
    drawn = draw(write_report(run))
    assert drawn.console == []
    assert "<title>Done: demo</title>" in drawn.dom
    assert drawn.count(r'<g class="growth ') == 2
    assert drawn.count(r'class="tile"') == 8
    assert (
        drawn.count(r"<polyline") == 4 + 4 * 2
    )  # loss raw, smooth, two sources; four small charts raw, smooth
    assert drawn.count(r'class="head new"') == 4 * 1 + 2 * 3 + 6 * 1 + 2 * 4
    for text in (
        "1 resume, bit-identical",
        "✓",
        "exact",
        "从前有一个",
        "小孩子",
        "max |Δlogit|",
        "sapling",
        "$",
    ):
        assert text in drawn.body
    for wrong in ("undefined", "NaN", "[object", "Infinity"):
        assert wrong not in drawn.body


@needs_chromium
@pytest.mark.parametrize("width", [500, 900])
def test_axis_switch_and_certificate_on_hover(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    plain = module._asset

    def acted(name: str) -> str:
        act = """
          document.querySelector('.switch input[value=seconds]').click();
          document.querySelector('.growth').dispatchEvent(new PointerEvent('pointermove'));
          const all = document.documentElement;
          document.body.dataset.spare = all.scrollWidth - all.clientWidth;
        """
        return plain(name) + (act if name == "start.js" else "")

    monkeypatch.setattr(module, "_asset", acted)
    drawn = draw(write_report(run, tmp_path / "acted.html"), width=width)
    assert drawn.console == []
    assert re.search(r"<text[^>]*>\d+ s</text>", drawn.body)
    tip = drawn.body.split('id="tip"')[1]
    assert "7.2e−7" in tip
    assert "Grew after step 80: exact" in tip
    assert 'data-spare="0"' in drawn.dom  # nothing sticks out to the right


@needs_chromium
def test_what_a_run_contains_never_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    FakeRun(run, per_stage=40, name=ATTACK).write(until=50, end=None)
    with Recorder(run / "metrics.jsonl", 1) as recorder:
        recorder.append("sample", step=50, prompt=ATTACK, text=ATTACK)
        recorder.append("event", step=50, level=ATTACK, message=ATTACK)
        recorder.append("valid", step=50, stage=0, losses={ATTACK: 3.0, "__proto__": 2.0})
        recorder.append("end", step=50, status=ATTACK)
    drawn = draw(write_report(run))
    assert drawn.console == []
    assert "<img" not in drawn.body
    assert "<title>pwned" not in drawn.dom
    assert drawn.count("&lt;/script&gt;&lt;script&gt;") >= 4
    comparison = tmp_path / "compare.html"
    comparison.write_text(compare_page(compare(run, run)), encoding="utf-8")
    drawn = draw(comparison)
    assert drawn.console == []
    assert "<img" not in drawn.body
    assert "pwned'&lt;" in drawn.body


@needs_chromium
def test_a_run_without_steps_and_a_run_without_price(tmp_path: Path) -> None:
    with Recorder(tmp_path / "metrics.jsonl", 1) as recorder:
        recorder.append("start", step=0, name="newborn")
    drawn = draw(write_report(tmp_path))
    assert drawn.console == []
    assert "Nothing recorded yet" in drawn.body
    free = FakeRun(tmp_path / "free", per_stage=40, price=None).write()
    drawn = draw(write_report(free))
    assert drawn.console == []
    assert "Money" not in drawn.body


def test_nothing_external_and_a_policy_that_forbids_it(run: Path) -> None:
    page = render(run)
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(?i)<(link|iframe|object|embed|img)\b|@import|url\((?!#)|\bimport\(", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "connect-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


@given(st.text())
def test_no_text_ends_the_data(text: str) -> None:
    embedded = embedded_json({"text": text, "attack": ATTACK})
    assert not re.search("[<>&\u2028\u2029]", embedded)
    assert json.loads(embedded) == {"text": text, "attack": ATTACK}


def test_the_report_is_written_whole_or_not_at_all(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "r.html"
    with pytest.raises(DiskError):
        write_report(run, out)
    out.parent.mkdir()
    out.write_text("old")
    assert write_report(run, out) == out
    assert out.read_text(encoding="utf-8").endswith("</html>\n")
    assert [p.name for p in out.parent.iterdir()] == ["r.html"]
    assert write_report(run) == run / "report.html"


def test_a_long_run_makes_a_small_page(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, per_stage=5000).write()
    assert (run / "metrics.jsonl").stat().st_size > 5_000_000
    assert len(render(run)) < 600_000


@needs_chromium
def test_a_forecast_is_a_tile_a_line_and_a_band(tmp_path: Path) -> None:
    folder = FakeRun(tmp_path / "run", per_stage=80).write(until=140, end=None)
    with Recorder(folder / "metrics.jsonl", 1) as recorder:
        path = {"step": [140, 150, 160], "loss": [3.2, 3.15, 3.1], "half": [0.05, 0.08, 0.1]}
        recorder.append("forecast", step=140, stage=1, final_loss=3.1, low=3.0, high=3.2, path=path)
        recorder.append("event", step=140, level="warning", message="the loss has left its forecast: 3.9")
    drawn = draw(write_report(folder))
    assert drawn.console == []
    assert drawn.count(r'class="tile"') == 9
    assert drawn.count(r'class="area train"') == 1
    assert drawn.count(r'class="line train ahead"') == 1
    for text in (
        "Predicted final loss",
        "3.100",
        "3.000 to 3.200 (90 %), end of sapling",
        "left its forecast",
    ):
        assert text in drawn.body


@needs_chromium
def test_three_objectives_and_the_data_card(tmp_path: Path) -> None:
    run = FakeRun(tmp_path / "run", per_stage=80, signals=True).write()
    drawn = draw(write_report(run))
    assert drawn.console == []
    # beyond the four charts: per objective raw and smooth, held-out rte and chat, accuracy and chance
    assert drawn.count(r"<polyline") == 4 + 4 * 2 + 3 * 2 + 2 + 2
    assert drawn.count(r'class="tile"') == 9
    assert drawn.count(r"<details>") == 3
    for text in (
        "Accuracy, rte",
        "chance",
        "teacher signals",
        "CC BY-SA 4.0",
        "53.5&nbsp;%",
        "HTML: 100",
        "boolq",
    ):
        assert text in drawn.body
    for wrong in ("undefined", "NaN", "[object", "Infinity"):
        assert wrong not in drawn.body


@needs_chromium
def test_names_and_samples_of_the_data_are_only_text(tmp_path: Path) -> None:
    source = CARD["sources"]["rte"] | {"samples": [ATTACK], "licenses": {ATTACK: 3, "constructor": 1}}
    names = ("constructor", "__proto__", ATTACK)
    card = CARD | {"sources": dict.fromkeys(names, source), "contamination": {ATTACK: 1}}
    card |= {"mixture": {ATTACK: dict.fromkeys(names, 1.0)}}
    run = FakeRun(tmp_path / "run", per_stage=40).write(until=50, end=None)
    (run / "data-card.json").write_text(json.dumps(card), encoding="utf-8")
    with Recorder(run / "metrics.jsonl", 1) as recorder:
        for objectives in (
            {name: {"loss": 1.0, "tokens": 9} for name in names},
            {ATTACK: 3, "x": {"loss": ATTACK}},
            7,
        ):
            recorder.append("step", step=51, stage=1, loss=2.0, objectives=objectives)
        told = dict.fromkeys((*names, "toString"), 0.5)
        recorder.append("valid", step=51, stage=1, losses=told, accuracy=told, epochs=told)
    drawn = draw(write_report(run))
    assert drawn.console == []
    assert "<img" not in drawn.body
    assert "<title>pwned" not in drawn.dom
    assert drawn.count("&lt;/script&gt;&lt;script&gt;") >= 8
