"""From what the harness logs to scores: against formulas, sklearn, and the harness's own numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("lm_eval")

from growlm.evaluate.knowledge.averages import average, scores_of
from growlm.evaluate.knowledge.benchmarks import BENCHMARKS
from growlm.evaluate.knowledge.scores import Item, all_right, macro_f1
from growlm.evaluate.result import Score


def item(task: str = "t", right: float = 1.0, **more: object) -> Item:
    told = {"values": {"acc": right}, "chance": 0.25, "logprobs": [0.0], "target": 0, "answer": 0}
    told |= {"prompt": "p", "document": {}, "cut": 0, "failed": ""}
    return Item(task=task, index=0, **{**told, **more})  # pyright: ignore[reportArgumentType]


def part(task: str, metric: str, value: float, half: float, shots: int, notes: list[str]) -> Score:
    return Score(task, metric, value, value - half, value + half, 100, "open-llm", shots, 0.25, notes=notes)


PARTS = [
    part("arc_challenge", "acc_norm", 0.3976, 0.03, 25, []),
    part("hellaswag", "acc_norm", 0.6623, 0.01, 10, []),
    part("mmlu", "acc", 0.2830, 0.01, 5, ["the mean of 57 subjects; by items 28.10%"]),
    part("truthfulqa_mc2", "acc", 0.4147, 0.02, 0, []),
]


def test_the_open_llm_average_of_the_paper() -> None:
    """FLM-101B's row of table 4 in arXiv:2309.03852; the interval adds independent errors."""
    found = average(PARTS)
    assert found is not None
    assert found.value == pytest.approx(0.4394, abs=5e-5)
    assert found.published["FLM-101B"] == 0.4394
    assert found.high - found.value == pytest.approx(math.sqrt(9 + 1 + 1 + 4) / 400)
    assert found.notes == []
    assert average(PARTS[1:]) is None


def test_an_average_that_is_not_the_leaderboard_s_says_why() -> None:
    few = replace(PARTS[0], shots=0, notes=["too few examples (no train split), so 0 shots, not 25"])
    short = replace(PARTS[1], differs=["9,000 rows, the official set has 10,042"])
    found = average([few, short, *PARTS[2:]])
    assert found is not None
    assert found.notes == [
        "not comparable: arc_challenge with 0 examples, the leaderboard has 25",
        "not comparable: hellaswag: 9,000 rows, the official set has 10,042",
    ]


def test_exams_count_subjects_not_items() -> None:
    right = {"abstract_algebra": [1.0, 0.0, 0.0, 0.0], "virology": [1.0, 1.0]}
    items = {f"mmlu_{s}": [item(right=value) for value in values] for s, values in right.items()}
    scores = {score.task: score for score in scores_of(BENCHMARKS["mmlu"], items, 5)}
    assert scores["mmlu"].value == pytest.approx((1 / 4 + 1) / 2)
    assert scores["mmlu"].notes == ["the mean of 2 subjects; by items 50.00%"]
    assert (scores["mmlu_stem"].value, scores["mmlu_other"].value) == (0.25, 1.0)
    assert "mmlu_humanities" not in scores
    assert scores["mmlu/virology"].group == "mmlu/subjects"
    assert scores["mmlu"].items == 6
    assert scores["mmlu"].low < scores["mmlu"].value < scores["mmlu"].high


def test_every_score_of_an_exam_says_what_is_special() -> None:
    """So also a category, which stands beside published values of another split."""
    items = {"ceval-valid_law": [item(right=1.0)]}
    scores = scores_of(BENCHMARKS["ceval"], items, 5, ["a", "b"], ["b"])
    assert [score.task for score in scores] == ["ceval", "ceval_humanities", "ceval/law"]
    assert all(score.notes[:2] == ["a", "b"] and score.differs == ["b"] for score in scores)
    assert {score.benchmark for score in scores} == {"ceval"}
    assert "published values are of the test set" in BENCHMARKS["ceval"].remark


def test_f1_of_cb_is_the_macro_average_of_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    pairs = np.random.default_rng(3).integers(0, 3, (56, 2))
    found = macro_f1([item(values={"f1": (int(gold), int(guess))}) for gold, guess in pairs])
    assert found.value == pytest.approx(metrics.f1_score(pairs[:, 0], pairs[:, 1], average="macro"))
    assert found.low < found.value < found.high


def test_exact_match_needs_all_answers_of_a_question() -> None:
    told = [(0, 0, 1.0), (0, 0, 1.0), (0, 1, 1.0), (0, 1, 0.0), (1, 0, 1.0)]
    items = [item(right=right, document={"idx": {"paragraph": p, "question": q}}) for p, q, right in told]
    found = all_right(items)
    assert (found.value, found.items) == (pytest.approx(2 / 3), 3)
    assert found.chance == pytest.approx((1 / 4 + 1 / 4 + 1 / 2) / 3)
    cut = [replace(one, cut=3) for one in items[:3]]
    scores = scores_of(BENCHMARKS["multirc"], {"multirc": [*cut, *items[3:]]}, 0)
    assert {score.metric: (score.items, score.cut) for score in scores} == {
        "acc": (5, 3),
        "exact_match": (3, 2),
    }
