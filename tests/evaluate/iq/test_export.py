"""The exported folder under lm-evaluation-harness, against the suite itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xxhash

from growlm.errors import RecipeError
from growlm.evaluate.iq.export import write_export
from growlm.evaluate.iq.suite import measure, plan
from growlm.evaluate.iq.task import Language, Setup
from tests.evaluate.iq.labelled import write_sets
from tests.evaluate.iq.solvers import Solver, guess, solve


def sometimes(prompt: str) -> str:
    """Right, wrong, or the right answer with more behind it."""
    turn = xxhash.xxh64_intdigest(prompt.encode()) % 4
    return [solve(prompt), guess(prompt, 1), f"{solve(prompt)}. ", f" {solve(prompt)} 9"][turn]


def test_the_harness_finds_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    from growlm.evaluate.harness import HarnessModel

    sets = write_sets(tmp_path / "sets")
    planned, scores = [], {}
    asked: list[tuple[Language, list[str]]] = [
        ("en", ["rules", "key_retrieval", "superglue_iq_wic", "clue_iq_ocnli"]),
        ("zh", ["counting", "head_tail", "two_facts"]),
    ]
    for language, names in asked:
        planned += plan(names, Setup(3, language, 12, data_dir=sets))
        model = Solver(sometimes, "s")
        for score in measure(model, names, items=12, seed=3, language=language, data_dir=sets):
            scores[f"growlm_{score.task}", score.metric] = score.value
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    told = write_export(Path("tasks"), "harness", planned, Setup(3))
    assert "--tasks growlm_iq" in told[1]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = lm_eval.simple_evaluate(
        HarnessModel(Solver(sometimes, "s")),
        tasks=["growlm_iq"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        bootstrap_iters=0,
    )
    assert found is not None
    theirs = {}
    for task, values in found["results"].items():
        if task.endswith("_likelihood"):
            theirs[task.removesuffix("_likelihood"), "likelihood"] = values["acc,none"]
        elif "exact_match,answer" in values:
            theirs[task, "exact_match"] = values["exact_match,answer"]
    assert len(theirs) == len(planned) + 2
    assert theirs == pytest.approx({key: scores[key] for key in theirs})
    assert len(set(theirs.values())) > 4


def test_lines_hold_all_that_judging_takes(tmp_path: Path) -> None:
    setup = Setup(items=5)
    planned = plan(["counting", "key_retrieval"], setup)
    write_export(tmp_path / "new", "jsonl", planned, setup)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "counting.jsonl",
        "key_retrieval.jsonl",
    ]
    for each in planned:
        lines = (tmp_path / "new" / f"{each.label}.jsonl").read_text("utf-8").splitlines()
        for line, item in zip(map(json.loads, lines), each.items, strict=True):
            assert (line["prompt"], line["target"]) == (item.prompt, item.target)
            assert line["max_tokens"] >= len(item.target.encode())
    with pytest.raises(RecipeError, match="not empty"):
        write_export(tmp_path / "new", "jsonl", planned, setup)
