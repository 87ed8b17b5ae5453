"""What the harness logs of each document, as scores and as lines of items.jsonl."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from growlm.evaluate.harness import HarnessModel
from growlm.evaluate.intervals import RESAMPLES, interval, interval_of_average
from growlm.inference.requests import Choice, Failed, Likelihood

Sample = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A document that was asked."""

    task: str
    """The harness's."""
    index: int
    values: dict[str, Any]
    """Of each metric."""
    chance: float
    """What guessing scores."""
    logprobs: list[float]
    target: int | str | list[Any]
    answer: int
    """The likeliest choice."""
    prompt: str
    document: dict[str, Any]
    cut: int
    """Tokens of its longest request that did not fit."""
    failed: str
    """Why it was not answered, or empty."""

    def line(self) -> dict[str, Any]:
        """For items.jsonl."""
        return {
            "task": self.task,
            "index": self.index,
            "prompt": xxhash.xxh3_128_hexdigest(self.prompt.encode()),
            "end_of_prompt": self.prompt[-200:],
            "logprobs": [value if math.isfinite(value) else None for value in self.logprobs],
            "target": self.target,
            "answer": self.answer,
            "right": {name: value for name, value in self.values.items() if isinstance(value, int | float)},
            "cut": self.cut,
            "failed": self.failed,
        }


def items(task: str, samples: Sequence[Sample], lm: HarnessModel) -> list[Item]:
    """A task's documents in their order; one that was not answered in full is wrong."""
    return [_item(task, sample, lm) for sample in sorted(samples, key=lambda sample: sample["doc_id"])]


def _item(task: str, sample: Sample, lm: HarnessModel) -> Item:
    asked = [Choice(*arguments) for arguments in sample["arguments"]]
    answers = [lm.answers[choice] for choice in asked]
    failed = next((answer.why for answer in answers if isinstance(answer, Failed)), "")
    values = {name: sample[name] for name in sample["metrics"]}
    logprobs = [answer.logprob if isinstance(answer, Likelihood) else -math.inf for answer in answers]
    return Item(
        task=task,
        index=sample["doc_id"],
        values={name: _wrong(value) if failed else value for name, value in values.items()},
        chance=_chance(task, sample),
        logprobs=logprobs,
        target=sample["target"],
        answer=int(np.argmax(logprobs)),
        prompt=asked[0].context,
        document=sample["doc"],
        cut=max((answer.cut for answer in answers if isinstance(answer, Likelihood)), default=0),
        failed=failed,
    )


def _wrong(value: Any) -> Any:
    """The value of an item without an answer: of F1, which pairs labels, a guess that no label is."""
    return (value[0], -1) if isinstance(value, tuple) else 0.0


def _chance(task: str, sample: Sample) -> float:
    """One of the choices; of MC2 the share of right ones, which equal probabilities get."""
    if task == "truthfulqa_mc2":
        labels = sample["doc"]["mc2_targets"]["labels"]
        return sum(labels) / len(labels)
    return 1 / len(sample["arguments"])


@dataclass(frozen=True)
class Measured:
    """A metric over items, with its 95 % interval."""

    value: float
    low: float
    high: float
    items: int
    chance: float | None


def measured(found: Sequence[Item], metric: str) -> Measured:
    """A metric of a benchmark by its name."""
    if metric == "exact_match":
        return all_right(found)
    return macro_f1(found) if isinstance(found[0].values[metric], tuple) else mean(found, metric)


def counted(found: Sequence[Item], metric: str) -> list[list[Item]]:
    """What a metric counts: items, or MultiRC's questions with all their answers."""
    if metric != "exact_match":
        return [[item] for item in found]
    questions: dict[tuple[int, int], list[Item]] = defaultdict(list)
    for item in found:
        idx = item.document["idx"]
        questions[idx["paragraph"], idx["question"]].append(item)
    return list(questions.values())


def mean(found: Sequence[Item], metric: str) -> Measured:
    """Of a metric that is a number for each item."""
    values = [float(item.values[metric]) for item in found]
    return Measured(float(np.mean(values)), *interval(values), len(values), _chance_of(found))


def mean_of_subjects(subjects: Sequence[Sequence[Item]], metric: str) -> Measured:
    """The unweighted mean of the subjects' means; items are resampled each in its subject."""
    values = [[float(item.values[metric]) for item in found] for found in subjects]
    chance = float(np.mean([_chance_of(found) for found in subjects]))
    return Measured(
        float(np.mean([np.mean(each) for each in values])),
        *interval_of_average(values),
        sum(map(len, values)),
        chance,
    )


def all_right(found: Sequence[Item]) -> Measured:
    """MultiRC's exact match: the share of questions all of whose answers were judged right."""
    questions = counted(found, "exact_match")
    values = [float(all(item.values["acc"] for item in answers)) for answers in questions]
    chance = float(np.mean([0.5 ** len(answers) for answers in questions]))
    return Measured(float(np.mean(values)), *interval(values), len(values), chance)


def macro_f1(found: Sequence[Item], metric: str = "f1", classes: int = 3) -> Measured:
    """CB's: the mean over the labels of F1; a label that is neither there nor guessed has 0."""
    pairs = np.array([item.values[metric] for item in found])
    draws = np.random.Generator(np.random.Philox(0)).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    low, high = np.quantile(_f1(pairs[draws], classes), [0.025, 0.975])
    return Measured(float(_f1(pairs, classes)), float(low), float(high), len(pairs), None)


def _f1(pairs: np.ndarray, classes: int) -> np.ndarray:
    """Of pairs (..., items, (gold, guess))."""
    scores = []
    for label in range(classes):
        gold, guess = pairs[..., 0] == label, pairs[..., 1] == label
        both, either = (gold & guess).sum(-1), gold.sum(-1) + guess.sum(-1)
        scores.append(np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0))
    return np.mean(scores, axis=0)


def _chance_of(found: Sequence[Item]) -> float:
    return float(np.mean([item.chance for item in found]))
