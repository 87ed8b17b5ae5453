"""The data of the views agrees with the record it was computed from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_run import BATCH, CARD, SEQ, FakeRun, parameters, shape

from growlm.errors import RecipeError
from growlm.report.summary import Summarizer, summary
from growlm.train.record import Recorder, read_record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun(tmp_path_factory.mktemp("run"), per_stage=80).write(killed_at=130)


def test_totals_stages_and_growths(run: Path) -> None:
    s = summary(run)
    last = [r for r in read_record(run / "metrics.jsonl") if r["kind"] == "step"][-1]
    t = s["totals"]
    assert s["state"]["kind"] == "done"
    assert (t["step"], t["tokens"], t["flops"], t["cost"]) == tuple(
        last[k] for k in ("step", "tokens", "flops", "cost")
    )
    assert (t["starts"], t["resumes"], t["verified"], t["differing"], t["skipped"]) == (2, 1, 1, 0, 1)
    assert t["seconds_to_go"] == pytest.approx(0.0)
    assert [st["name"] for st in s["stages"]] == ["seed", "sapling", "tree"]
    assert [st["trained"] for st in s["stages"]] == [80 * BATCH * SEQ] * 3
    assert [st["parameters"] for st in s["stages"]] == [parameters(i) for i in range(3)]
    assert [g["step"] for g in s["growths"]] == [80, 160]
    assert {c["axis"]: (c["from"], c["to"]) for c in s["growths"][0]["changes"]} == {
        axis: (shape(0)[axis], shape(1)[axis]) for axis in ("d_model", "n_heads", "d_ff", "n_layers")
    }
    assert s["growths"][1]["certificate"]["new_layers"] == [6, 7]


def test_curves_pass_through_the_record(run: Path) -> None:
    s = summary(run)
    records = read_record(run / "metrics.jsonl")
    truth = {r["step"]: r["loss"] for r in records if r["kind"] == "step" and r["loss"] is not None}
    steps, values = s["series"]["loss"]["raw"]
    assert steps == sorted(truth)
    assert values == pytest.approx([truth[n] for n in steps], rel=1e-5)
    valid = {r["step"]: r["losses"]["zh-modern"] for r in records if r["kind"] == "valid"}
    assert dict(zip(*s["valid"]["zh-modern"], strict=True)) == pytest.approx(valid, rel=1e-5)


def test_samples_and_events(run: Path) -> None:
    s = summary(run)
    chinese = next(p for p in s["samples"] if p["prompt"] == "从前有一个")
    assert [t["step"] for t in chinese["texts"]] == sorted(t["step"] for t in chinese["texts"])
    assert chinese["texts"][-1] == {"step": 240, "text": "小孩子，住在山脚下的村子里。"}
    told = " ".join(e["text"] for e in reversed(s["events"]))
    for earlier, later in (
        ("Started on", "Grew: d_model 128"),
        ("Started again", "Resumed from step 100"),
        ("Resumed from", "30 repeated steps are bit-identical"),
        ("d_model 192 → 256", "Done."),
    ):
        assert told.index(earlier) < told.index(later)


def test_a_run_in_progress_knows_what_is_left(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, per_stage=80)
    run = fake.write(until=100, end=None)
    s = summary(run)
    assert s["state"]["kind"] == "running"
    assert [p["name"] for p in s["planned"]] == ["tree"]
    assert s["planned"][0]["shape"]["n_layers"] == 8
    # 60 more steps of this stage and 80 of one that is about twice as large
    step = s["series"]["loss"]["raw"][0] and s["totals"]["seconds_to_go"] / fake._step_seconds(1)
    assert 60 + 80 < step < 60 + 80 * 3.5


def test_the_summarizer_follows_a_run(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, per_stage=40).write(until=50, end=None)
    summarizer = Summarizer(run)
    before = summarizer.summary()["totals"]["step"]
    with Recorder(run / "metrics.jsonl", 2) as recorder:
        recorder.append("resume", step=45, path="x")
        recorder.append("step", step=46, stage=1, tokens=5, loss=1.0)
        recorder.append("end", step=46, status="preempted")
    after = summarizer.summary()
    assert (before, after["totals"]["step"], after["state"]["kind"]) == (50, 46, "preempted")
    assert after == {**summary(run), "now": after["now"], "state": after["state"]}


def test_only_a_start_is_enough(tmp_path: Path) -> None:
    with Recorder(tmp_path / "metrics.jsonl", 1) as recorder:
        recorder.append("start", step=0)
    s = summary(tmp_path)
    assert (s["totals"]["step"], s["stages"], s["name"]) == (0, [], tmp_path.name)
    json.dumps(s, allow_nan=False)


def test_nonsense_in_a_record_stays_harmless(tmp_path: Path) -> None:
    with Recorder(tmp_path / "metrics.jsonl", 1) as recorder:
        recorder.append("start", step=0, name=["x"], argv="no list", price_per_hour="free", threads={})
        recorder.append("stage", step=0, stage="first", shape=[1], tokens="many", parameters=10**400)
        recorder.append("step", step=1, stage=None, tokens="7", loss="low", train_seconds=[], applied="yes")
        recorder.append("step", step=2)
        recorder.append("growth", step=2, certificate="exact", **{"from": 1, "to": {"d_model": "big"}})
        recorder.append(
            "growth", step=2, stage=1, certificate={"exact": 1, "layers": [3], "symmetry": {"a": 1}}
        )
        recorder.append("valid", step=2, losses=[1.0])
        recorder.append("sample", step=2, prompt=None, text=5)
        recorder.append("save", step=2, bytes="1 GB")
    json.dumps(summary(tmp_path), allow_nan=False)


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such run") as absent:
        summary(tmp_path / "absent")
    assert absent.value.exit_code == 2
    with pytest.raises(RecipeError, match="no record"):
        summary(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b"\x00garbage\n")
    with pytest.raises(RecipeError, match="not recorded a start"):
        summary(tmp_path)
    with Recorder(tmp_path / "metrics.jsonl", 1) as recorder:
        recorder.append("start", step=0)
    (tmp_path / "recipe.json").write_text('{"name": "cut')
    with pytest.raises(RecipeError, match="recipe of this run"):
        summary(tmp_path)


def test_money_to_go_and_its_limit_are_known(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, per_stage=40, price=3.6).write(until=50, end=None)
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    recipe["budget"] |= {"price_per_hour": 3.6, "max_cost": 20.0}
    (run / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    s = summary(run)
    assert s["totals"]["cost_to_go"] == pytest.approx(s["totals"]["seconds_to_go"] / 1000)
    assert s["max_cost"] == 20


def test_objectives_and_the_data_card_are_as_recorded(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, per_stage=80, signals=True).write(killed_at=130)
    s = summary(run)
    records = read_record(run / "metrics.jsonl")
    steps = [r for r in records if r["kind"] == "step"]
    assert list(s["objectives"]) == ["language", "teacher", "instruction"]
    for name, found in s["objectives"].items():
        told = {r["step"]: r["objectives"].get(name, {}) for r in steps if r["applied"]}
        truth = {step: o["loss"] for step, o in told.items() if o.get("loss") is not None}
        assert dict(zip(*found["raw"], strict=True)) == pytest.approx(truth, rel=1e-5)
        assert found["tokens"] == steps[-1]["objectives"][name]["tokens"]
    valid = [r for r in records if r["kind"] == "valid"]
    truth = {r["step"]: r["accuracy"]["rte"] for r in valid}
    assert dict(zip(*s["accuracy"]["rte"], strict=True)) == pytest.approx(truth, rel=1e-5)
    assert s["epochs"] == valid[-1]["epochs"]
    assert s["data"] == CARD
    (run / "data-card.json").write_text("{")
    assert summary(run)["data"] is None


def test_a_run_of_language_alone_has_no_objectives(run: Path) -> None:
    s = summary(run)
    assert (s["objectives"], s["accuracy"], s["epochs"], s["data"]) == ({}, {}, {}, None)
