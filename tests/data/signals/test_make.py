"""From labelled files to one file of propositions: what is left out, and real files in their forms."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from growlm.data.examples import signal_document
from growlm.data.signals.make import make_signals
from growlm.data.signals.sift import Contradiction
from growlm.errors import DataError, DiskError, RecipeError
from tests.data.signals.rows import choice_rows, made, nli_rows, write_rows

EVAL = Path(__file__).parents[4] / "shared" / "data" / "eval"


def test_lines_are_signals_with_their_provenance(tmp_path: Path):
    rows = nli_rows((8, 8), ("entailment", "not_entailment"))
    rows[3]["license"] = "MIT"
    lines, summary = made(tmp_path, "rte", rows, licenses={"rte": "CC0"})
    assert set(lines[0]) == {"text", "proposition", "signal", "task", "language", "source", "license"}
    assert Counter(line["signal"] for line in lines) == {True: 16, False: 16}
    for line in lines:
        signal_document(line, "here")
        file, _, number = line["source"].partition(":")
        row = rows[int(number) - 1]
        assert file == "rte.jsonl"
        assert line["text"] == row["premise"]
        assert line["proposition"].endswith(row["hypothesis"])
        assert line["license"] == row.get("license", "CC0")
    task = summary.tasks[0]
    assert (task.items, task.true, task.false, task.propositions) == (16, 16, 16, 32)
    assert (summary.bad_rows, summary.contradictions) == (0, [])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path):
    path = write_rows(tmp_path / "rte.jsonl", nli_rows((9, 5), ("entailment", "not_entailment")))
    contents = []
    for number, seed in enumerate((1, 1, 2)):
        make_signals(tmp_path / f"{number}.jsonl", {"rte": [path]}, seed=seed)
        contents.append((tmp_path / f"{number}.jsonl").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_copies_and_contradictions_are_left_out_and_named(tmp_path: Path):
    rows = nli_rows((6, 6), ("entailment", "not_entailment"))
    other = {"entailment": "not_entailment", "not_entailment": "entailment"}
    rows += [rows[0], {**rows[1], "label": other[rows[1]["label"]]}, rows[2], rows[0]]
    lines, summary = made(tmp_path, "rte", rows)
    dropped = summary.tasks[0].dropped
    assert (dropped["copy"], dropped["contradiction"]) == (3, 2)
    assert summary.contradictions == [Contradiction("rte.jsonl:14", "rte.jsonl:2")]
    assert rows[1]["premise"] not in {line["text"] for line in lines}
    used = {line["source"] for line in lines}
    assert used.isdisjoint({"rte.jsonl:2", "rte.jsonl:13", "rte.jsonl:14", "rte.jsonl:15", "rte.jsonl:16"})


def test_copies_and_contradictions_are_found_across_tasks_of_one_wording(tmp_path: Path):
    labels = ("entailment", "not_entailment")
    rows = nli_rows((4, 4), labels)
    others = [{"premise": f"New {label}", "hypothesis": "Old", "label": label} for label in labels]
    first = write_rows(tmp_path / "a.jsonl", rows)
    second = write_rows(tmp_path / "b.jsonl", [*rows, *others])
    (tmp_path / "mine.toml").write_text(
        'language = "en"\n[tasks.mine]\nfamily = "entailment"\n'
        'labels = { entailment = "entailment", not_entailment = "not_entailment" }\n'
    )
    summary = make_signals(
        tmp_path / "out.jsonl",
        {"rte": [first], "mine": [second]},
        task_files=[tmp_path / "mine.toml"],
    )
    assert summary.tasks[1].dropped["copy"] == 8


def test_a_choice_that_is_right_here_and_wrong_there_is_a_contradiction(tmp_path: Path):
    rows = choice_rows(6)
    rows += [{**rows[0], "answer": (rows[0]["answer"] + 1) % 4}]
    _, summary = made(tmp_path, "mmlu", rows)
    assert summary.tasks[0].dropped["contradiction"] == 2
    assert [(pair.first, pair.second) for pair in summary.contradictions] == [
        ("mmlu.jsonl:1", "mmlu.jsonl:7")
    ]


def test_labels_to_be_left_out_are_counted_and_unknown_ones_refused(tmp_path: Path):
    rows = [
        {"sentence1": row["premise"], "sentence2": row["hypothesis"], "label": row["label"]}
        for row in nli_rows((3, 3, 3))
    ]
    _, summary = made(tmp_path, "ocnli", [*rows, {**rows[0], "label": "-"}])
    assert summary.tasks[0].dropped["label"] == 1
    with pytest.raises(RecipeError) as caught:
        made(tmp_path, "ocnli", [*rows, {**rows[0], "label": "perhaps"}])
    for words in ("'perhaps'", "ocnli.jsonl:10", "entailment, neutral, contradiction", 'drop = ["perhaps"]'):
        assert words in str(caught.value)


def test_whole_numbers_are_labels_also_as_floats(tmp_path: Path):
    labels = {"entailment": 0, "not_entailment": 1}
    rows = [{**row, "label": labels[row["label"]]} for row in nli_rows((4, 4), tuple(labels))]
    as_floats = [{**row, "label": float(row["label"])} for row in rows]
    assert made(tmp_path, "rte", as_floats)[0] == made(tmp_path, "rte", rows)[0]


def test_a_position_of_thousands_of_digits_is_a_malformed_row(tmp_path: Path):
    rows = choice_rows(8)
    _, summary = made(tmp_path, "mmlu", [*rows, {**rows[0], "answer": "9" * 5000}])
    assert summary.bad_rows == 1


def test_malformed_rows_are_set_aside_up_to_the_limit(tmp_path: Path):
    good = nli_rows((4, 4), ("entailment", "not_entailment"))
    path = write_rows(
        tmp_path / "rte.jsonl",
        [
            {"premise": "a", "label": "entailment"},
            {**good[0], "label": None},
            {**good[0], "premise": ["a", 3]},
            *good,
        ],
    )
    path.write_text(path.read_text() + "{broken\n")
    out = tmp_path / "out.jsonl"
    assert make_signals(out, {"rte": [path]}).bad_rows == 4
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl.quarantine").read_text().splitlines()]
    assert [row["where"].rpartition(":")[2] for row in rows] == ["1", "2", "3", "12"]
    assert "`hypothesis`" in rows[0]["reason"]
    assert "`label`" in rows[1]["reason"]
    with pytest.raises(DataError, match="More than 2 rows are bad"):
        make_signals(tmp_path / "never.jsonl", {"rte": [path]}, max_bad_rows=2)
    with pytest.raises(DataError, match="`hypothesis`"):
        make_signals(tmp_path / "never.jsonl", {"rte": [path]}, max_bad_rows=0)
    assert not list(tmp_path.glob("*never*"))


@pytest.mark.parametrize(
    "answer", [4, "E", "e", -1, "", "AB", None, 1.5, True], ids=lambda answer: f"answer {answer!r}"
)
def test_an_answer_that_is_no_choice_is_malformed(tmp_path: Path, answer: object):
    rows = [*choice_rows(4), {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": answer}]
    _, summary = made(tmp_path, "mmlu", rows)
    assert summary.bad_rows == 1


def test_answers_may_be_numbers_letters_or_names_of_the_choices(tmp_path: Path):
    choices = ["a1", "b2", "c3", "d4"]
    lines, _ = made(
        tmp_path,
        "mmlu",
        [
            {"question": f"Q{i}", "choices": choices, "answer": answer}
            for i, answer in enumerate((2, "2", "C"))
        ],
    )
    assert {line["proposition"][-2:] for line in lines if line["signal"]} == {"c3"}
    rows = [
        {"question": f"Q{i}", "choices": {"text": choices[:3], "label": names}, "answerKey": names[2]}
        for i, names in enumerate((["A", "B", "C"], ["1", "2", "3"]))
    ]
    lines, _ = made(tmp_path, "arc", rows)
    assert {line["proposition"][-2:] for line in lines if line["signal"]} == {"c3"}


def test_a_copy_of_the_label_under_another_name_is_a_leak(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(
        'language = "en"\n[tasks.mine]\nfamily = "entailment"\ntext = "{premise} ({hint})"\n'
    )
    rows = [{**row, "hint": row["label"][:3]} for row in nli_rows((20, 20, 20))]
    with pytest.raises(RecipeError, match=r"leaks its label[\s\S]*\{hint\}"):
        made(tmp_path, "mine", rows, task_files=[tmp_path / "mine.toml"])


def test_texts_that_look_like_templates_or_special_tokens_stay_text(tmp_path: Path):
    trap = "{label} {{x}} {0.__class__} <|endoftext|> 😈 {% raw %}"
    rows = nli_rows((4, 4), ("entailment", "not_entailment"))
    for row in rows:
        row["premise"] += trap
    lines, _ = made(tmp_path, "rte", rows)
    assert all(line["text"].endswith(trap) for line in lines)
    document = signal_document(lines[0], "here")
    assert [segment.special for segment in document.segments] == [False, True]


def test_what_cannot_be_done_leaves_nothing(tmp_path: Path):
    path = write_rows(tmp_path / "rte.jsonl", nli_rows((4, 0), ("entailment", "not_entailment")))
    with pytest.raises(DataError, match="one label"):
        make_signals(tmp_path / "out.jsonl", {"rte": [path]})
    empty = write_rows(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataError, match="no items"):
        make_signals(tmp_path / "out.jsonl", {"rte": [empty]})
    good = write_rows(tmp_path / "good.jsonl", choice_rows(3))
    with pytest.raises(DiskError, match="cannot be written"):
        make_signals(good / "out.jsonl", {"mmlu": [good]})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.jsonl", "good.jsonl", "rte.jsonl"]


REAL = {
    "rte": "superglue/rte-train.jsonl",
    "boolq": "superglue/boolq-train.jsonl",
    "cb": "superglue/cb-train.jsonl",
    "copa": "superglue/copa-train.jsonl",
    "multirc": "superglue/multirc-train.jsonl",
    "wic": "superglue/wic-train.jsonl",
    "csl": "clue/csl-train-few.jsonl",
    "ocnli": "clue/ocnli-train-few.jsonl",
    "cluewsc": "clue/cluewsc-train-few.jsonl",
    "mmlu": "knowledge/mmlu-dev.jsonl.gz",
    "cmmlu": "knowledge/cmmlu-dev.jsonl.gz",
}


@pytest.mark.skipif(not EVAL.is_dir(), reason="../shared is not here")
def test_real_files_in_the_forms_they_come_in(tmp_path: Path):
    paths = {task: [EVAL / file] for task, file in REAL.items()}
    summary = make_signals(tmp_path / "out.jsonl", paths, max_bad_rows=0)
    assert [task.task for task in summary.tasks] == list(REAL)
    for task in summary.tasks:
        assert task.true == task.false > 20
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    languages = {task: {line["language"] for line in lines if line["task"] == task} for task in REAL}
    assert {task for task in REAL if languages[task] == {"zh"}} == {"csl", "ocnli", "cluewsc", "cmmlu"}
    with pytest.raises(DataError, match="one label: same"):  # its 32 rows are all true
        make_signals(tmp_path / "wsc.jsonl", {"wsc": [EVAL / "superglue/wsc-train.jsonl"]})
