"""Items of a benchmark as its scores: metrics, subjects and their categories, the Open LLM average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from growlm.evaluate.knowledge.benchmarks import OPEN_LLM, Benchmark
from growlm.evaluate.knowledge.scores import Item, Measured, counted, mean, mean_of_subjects, measured
from growlm.evaluate.published import published
from growlm.evaluate.result import Score

AVERAGE = "open_llm"
PARTS = {"arc_challenge": "acc_norm", "hellaswag": "acc_norm", "mmlu": "acc", "truthfulqa_mc2": "acc"}
"""Of the Open LLM Leaderboard's first version, as in arXiv:2309.03852: task to metric."""
LEADERBOARD_SHOTS = {"arc_challenge": 25, "hellaswag": 10, "mmlu": 5, "truthfulqa_mc2": 0}


def scores_of(
    benchmark: Benchmark,
    items: Mapping[str, Sequence[Item]],
    shots: int,
    notes: Sequence[str] = (),
    differs: Sequence[str] = (),
) -> list[Score]:
    """The scores of a benchmark's items by the harness's tasks; the one that counts comes first.

    Args:
        differs: of the notes those on other rows or examples than the published ones.
    """
    found = _exam(benchmark, items, shots) if benchmark.subjects else _tasks(benchmark, items, shots)
    return [
        replace(score, benchmark=benchmark.name, notes=[*notes, *score.notes], differs=list(differs))
        for score in found
    ]


def _tasks(benchmark: Benchmark, items: Mapping[str, Sequence[Item]], shots: int) -> list[Score]:
    found = []
    for task, name in benchmark.tasks.items():
        for metric in benchmark.metrics:
            found.append(
                _score(name, metric, measured(items[task], metric), benchmark.group, shots, items[task])
            )
    return [_beside_published(score, first=score.metric == benchmark.metrics[0]) for score in found]


def average(scores: Sequence[Score]) -> Score | None:
    """The Open LLM average, if all of its parts are there.

    Its interval adds the parts' in quadrature, for their items are independent.
    """
    by_key = {(score.task, score.metric): score for score in scores}
    if not all(part in by_key for part in PARTS.items()):
        return None
    parts = [by_key[part] for part in PARTS.items()]
    value = float(np.mean([part.value for part in parts]))
    chances = [part.chance for part in parts if part.chance is not None]
    score = Score(
        task=AVERAGE,
        metric="mean",
        value=value,
        low=value - math.hypot(*(part.value - part.low for part in parts)) / len(parts),
        high=value + math.hypot(*(part.high - part.value for part in parts)) / len(parts),
        items=sum(part.items for part in parts),
        group=OPEN_LLM,
        chance=float(np.mean(chances)) if len(chances) == len(parts) else None,
        cut=sum(part.cut for part in parts),
        failed=sum(part.failed for part in parts),
        notes=_not_comparable(parts),
    )
    return _beside_published(score)


def _not_comparable(parts: Sequence[Score]) -> list[str]:
    """What keeps an average from being the leaderboard's."""
    shots = [
        f"not comparable: {part.task} with {part.shots} examples, the leaderboard has {usual}"
        for part in parts
        if part.shots != (usual := LEADERBOARD_SHOTS[part.task])
    ]
    return shots + [f"not comparable: {part.task}: {note}" for part in parts for note in part.differs]


def _exam(benchmark: Benchmark, items: Mapping[str, Sequence[Item]], shots: int) -> list[Score]:
    """The mean over subjects, as the leaderboards count, then categories, then subjects."""
    metric = benchmark.metrics[0]
    by_subject = {
        s: items[task] for s in benchmark.subjects if (task := benchmark.task_of.format(s)) in items
    }
    every = [item for found in by_subject.values() for item in found]
    total = _score(
        benchmark.name,
        metric,
        mean_of_subjects(list(by_subject.values()), metric),
        benchmark.group,
        shots,
        every,
    )
    weighted = mean(every, metric).value
    total = replace(total, notes=[f"the mean of {len(by_subject)} subjects; by items {weighted:.2%}"])
    scores = [_beside_published(total)]
    for category in dict.fromkeys(name for names in benchmark.subjects.values() for name in names):
        chosen = [found for s, found in by_subject.items() if category in benchmark.subjects[s]]
        if chosen:
            group = f"{benchmark.name}/categories" if benchmark.group == OPEN_LLM else benchmark.group
            flat = [item for found in chosen for item in found]
            scores.append(
                _beside_published(
                    _score(
                        f"{benchmark.name}_{category}",
                        metric,
                        mean_of_subjects(chosen, metric),
                        group,
                        shots,
                        flat,
                    )
                )
            )
    for subject, found in by_subject.items():
        group = f"{benchmark.name}/subjects"
        scores.append(_score(f"{benchmark.name}/{subject}", metric, mean(found, metric), group, shots, found))
    return scores


def _score(task: str, metric: str, found: Measured, group: str, shots: int, items: Sequence[Item]) -> Score:
    return Score(
        task=task,
        metric=metric,
        value=found.value,
        low=found.low,
        high=found.high,
        items=found.items,
        group=group,
        shots=shots,
        chance=found.chance,
        cut=sum(any(item.cut for item in each) for each in counted(items, metric)),
        failed=sum(any(item.failed for item in each) for each in counted(items, metric)),
    )


def _beside_published(score: Score, *, first: bool = True) -> Score:
    return replace(score, published=published(score.task)) if first else score
