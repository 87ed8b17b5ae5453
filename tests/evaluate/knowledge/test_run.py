"""The whole evaluation, with a model that knows the answers."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval")

from growlm.errors import DataError
from growlm.evaluate.knowledge.run import measure, plan, run
from growlm.evaluate.result import load_result, save_result
from tests.evaluate.knowledge.sets import (
    ARC,
    CLUE,
    HELLASWAG,
    MULTIRC,
    RECORD,
    TRUTHFULQA,
    Knowing,
    exam,
    write,
)

FACTS: dict[str, Any] = {
    "name": "m",
    "source": "m",
    "parameters": 1,
    "tokens": None,
    "zettaflops": None,
    "stage": None,
}
RIGHT = [
    *(f" {row['choices'][row['gold']]}" for row in ARC),
    *(f" {row['endings'][int(row['label'])].replace(' [title]', '.')}" for row in HELLASWAG),
    *(f" They have {4 * i}." for i in range(5)),
    " Four each.",
    " a dog\nIs the answer correct? yes",
    " a cow\nIs the answer correct? no",
    " a park\nIs the answer correct? no",
    " B",
    "   - Bob left",
    *("相同", "是", "不确定"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    write(data / "arc-challenge-test.jsonl", ARC)
    write(data / "arc-challenge-train.jsonl", ARC)
    write(data / "hellaswag-val.jsonl.gz", HELLASWAG)
    write(data / "truthfulqa" / "mc_task.json", TRUTHFULQA)
    write(data / "multirc-val.jsonl", MULTIRC)
    write(data / "record-val.jsonl", RECORD)
    for name, rows in CLUE.items():
        write(data / "clue" / f"{name}.jsonl", rows)
    write(data / "mmlu-test.jsonl", exam(["anatomy", "virology"]))
    write(data / "mmlu-dev.jsonl", exam(["anatomy", "virology"], 5))
    return data


def test_who_knows_everything_scores_everything(folder: Path, tmp_path: Path) -> None:
    model = Knowing(RIGHT)
    result = run(model, FACTS, plan([], folder, shots=2), tmp_path / "out", quiet=True)
    assert [score for score in result.scores if score.value != 1] == []
    by_task = {(score.task, score.metric): score for score in result.scores}
    assert by_task["open_llm", "mean"].notes[0].startswith("not comparable: arc_challenge with 2 examples")
    assert by_task["arc_challenge", "acc_norm"].chance == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 3)
    assert by_task["truthfulqa_mc2", "acc"].chance == 0.5
    assert by_task["mmlu", "acc"].shots == 2
    assert load_result(tmp_path / "out" / "results.json") == result
    lines = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 6 + 6 + 6 + 5 + 5 + 3 + 1 + 4
    assert lines[0]["logprobs"].index(0.0) == lines[0]["answer"] == ARC[0]["gold"]


def test_examples_come_before_the_question(folder: Path) -> None:
    """As the harness writes them; MMLU's are the first of the subject's development set."""
    from growlm.evaluate.knowledge.ask import quietly, tasks_of

    (planned,) = plan(["mmlu"], folder, shots=2)
    assert planned.loaded is not None
    task = tasks_of(planned.loaded, 2)["tasks"]["mmlu_virology"]
    with quietly():
        task.build_all_requests(rank=0, world_size=1)
    choices = "\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    head = "The following are multiple choice questions (with answers) about virology.\n\n"
    shots = "".join(f"virology {i}?{choices} B\n\n" for i in range(2))
    assert task.instances[0].args == (f"{head}{shots}virology 0?{choices}", " A")


def test_as_many_examples_as_there_are(folder: Path, tmp_path: Path) -> None:
    """The harness draws one more where it does not know their split; of exams it takes the first."""
    write(folder / "hellaswag-train.jsonl", HELLASWAG)
    planned = plan(["hellaswag", "mmlu", "arc_challenge"], folder, shots=99)
    found = {each.benchmark.name: each for each in planned}
    assert {name: each.shots for name, each in found.items()} == {
        "arc_challenge": len(ARC), "hellaswag": len(HELLASWAG) - 1, "mmlu": 5
    }  # fmt: skip
    result = run(Knowing(RIGHT), FACTS, planned, tmp_path / "out", quiet=True)
    assert {score.value for score in result.scores} == {1.0}


def test_run_again_it_asks_nothing_and_keeps_the_rest(folder: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", Knowing(RIGHT)
    whole = run(model, FACTS, plan([], folder), out, quiet=True)
    asked = model.asked
    said: list[str] = []
    again = run(model, FACTS, plan(["mmlu", "multirc"], folder), out, say=said.append, quiet=True)
    assert model.asked == asked
    assert said[-1] == f"{6 * 4 + 3 * 2} answers were known from {out / 'answers.jsonl'}"
    assert again.scores == whole.scores
    assert len((out / "items.jsonl").read_text("utf-8").splitlines()) == 36
    limited = run(model, FACTS, plan(["hellaswag"], folder, limit=2), out, quiet=True)
    assert {s.task: s.items for s in limited.scores}["hellaswag"] == 2
    assert "not comparable: hellaswag: the first 2 documents" in limited.scores[0].notes


def test_scores_of_a_benchmark_that_is_no_more_are_dropped(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(Knowing(RIGHT), FACTS, plan(["hellaswag"], folder), out, quiet=True)
    old = replace(result.scores[0], benchmark="", task="mmlu_of_old")
    save_result(out, replace(result, scores=[*result.scores, old]))
    again = run(Knowing(RIGHT), FACTS, plan(["mmlu"], folder), out, quiet=True)
    assert {score.benchmark for score in again.scores} == {"hellaswag", "mmlu"}


def test_a_hub_that_gives_nothing_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there are older results; what is no error of the hub is not called one."""
    told = (Knowing(RIGHT), FACTS)
    before = run(*told, plan(["hellaswag"], folder), tmp_path, quiet=True)

    def failing(error: Exception) -> None:
        def tasks(*_: object) -> None:
            raise error

        monkeypatch.setattr("growlm.evaluate.knowledge.run.hub_tasks", tasks)

    failing(ConnectionError("no network"))
    planned = plan(["copa", "wic"], None, hub=True)
    with pytest.raises(DataError, match="The hub did not give wic"):
        run(*told, planned, tmp_path, quiet=True)
    said: list[str] = []
    mixed = [*planned, *plan(["hellaswag"], folder)]
    assert run(*told, mixed, tmp_path, say=said.append, quiet=True).scores == before.scores
    assert said[0] == "copa is left out: The hub did not give copa: ConnectionError: no network"
    failing(TypeError("ours"))
    with pytest.raises(TypeError):
        run(*told, planned, tmp_path, quiet=True)


def test_an_average_with_examples_of_another_split_says_so(folder: Path, tmp_path: Path) -> None:
    (folder / "arc-challenge-train.jsonl").rename(folder / "arc-challenge-validation.jsonl")
    names = ["arc_challenge", "hellaswag", "mmlu", "truthfulqa"]
    (total, *_) = run(Knowing(RIGHT), FACTS, plan(names, folder), tmp_path, quiet=True).scores
    assert total.task == "open_llm"
    assert "not comparable: arc_challenge: examples from the validation split, not train" in total.notes


def test_an_item_without_an_answer_is_wrong(folder: Path, tmp_path: Path) -> None:
    """Also where the first choice, which the harness takes of equals, is the right one."""
    model = Knowing(RIGHT, failing=["What is 0 and", "legs have 1 cats"])
    result = run(model, FACTS, plan(["arc_challenge", "truthfulqa"], folder, shots=0), tmp_path, quiet=True)
    for score in result.scores:
        count = {"arc_challenge": 6, "truthfulqa_mc1": 5, "truthfulqa_mc2": 5}[score.task]
        assert (score.failed, score.value) == (1, pytest.approx((count - 1) / count))


def test_measuring_disturbs_nothing(folder: Path) -> None:
    def state() -> tuple[Any, ...]:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    planned = plan(["mmlu", "arc_challenge"], folder)
    before = state()
    first = measure(Knowing(RIGHT), planned, 4)
    assert state() == before
    assert {score.task: score.items for score in first}["arc_challenge"] == 4
    assert {score.task: score.items for score in first}["mmlu"] == 4
    for path in folder.glob("*.jsonl"):
        path.unlink()
    assert measure(Knowing(RIGHT), planned, 4) == first
