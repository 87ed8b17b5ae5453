"""Outcomes of items as scores: of tasks, of the buckets of a task, and the paper's averages."""

from __future__ import annotations

from collections.abc import Sequence

from growlm.evaluate.intervals import interval, interval_of_average
from growlm.evaluate.iq.asking import Outcome, Planned
from growlm.evaluate.iq.task import Setup
from growlm.evaluate.iq.tasks import GROUPS, TASKS
from growlm.evaluate.published import published
from growlm.evaluate.result import Score

WRITTEN, LIKELIEST = "exact_match", "likelihood"
BUCKETS = "iq/keys"
"""The group of the scores by number of keys and amount of filler."""


def scores_of(plan: Sequence[Planned], outcomes: Sequence[list[Outcome]], setup: Setup) -> list[Score]:
    """All scores: averages first in their groups, as the paper has them, buckets last."""
    by_task = dict(
        zip((planned.task.name for planned in plan), zip(plan, outcomes, strict=True), strict=True)
    )
    scores: list[Score] = []
    for average, group in GROUPS.items():
        mine = [by_task[name] for name, task in TASKS.items() if task.group == group and name in by_task]
        for metric in (WRITTEN, LIKELIEST):
            found = [_score(planned, each, metric, setup) for planned, each in mine if each]
            found = [score for score in found if score is not None]
            if found and len(found) == sum(task.group == group for task in TASKS.values()):
                scores.append(_average(average, found, [_values(each, metric) for _, each in mine]))
            scores += found
    return scores + [score for planned, each in by_task.values() for score in _buckets(planned, each, setup)]


def _values(outcomes: list[Outcome], metric: str) -> list[float]:
    return [float(bool(one.right if metric == WRITTEN else one.likeliest)) for one in outcomes]


def _score(planned: Planned, outcomes: list[Outcome], metric: str, setup: Setup) -> Score | None:
    """None for likelihoods of a task without choices, and where no likelihood was answered."""
    items = [one.item for one in outcomes]
    unweighed = _unweighed(outcomes)
    if metric == LIKELIEST and (unweighed or not items[0].choices):
        return None
    chances = [item.chance for item in items if item.chance is not None]
    guessed = metric == LIKELIEST or not items[0].choices
    values = _values(outcomes, metric)
    low, high = interval(values)
    shots = planned.task.dials["shots"]
    return Score(
        task=planned.label,
        metric=metric,
        value=sum(values) / len(values),
        low=low,
        high=high,
        items=len(values),
        group=_group(planned),
        shots=setup.dials.get("shots", shots.values[0]),
        chance=sum(chances) / len(chances) if chances and guessed else None,
        cut=sum(one.cut > 0 for one in outcomes),
        failed=sum(bool(one.unwritten if metric == WRITTEN else one.unweighed) for one in outcomes),
        published=published(planned.label) if metric == WRITTEN else {},
        notes=[*planned.notes, *_dials(planned, setup), *unweighed, *_why(outcomes, metric)],
    )


def _unweighed(outcomes: list[Outcome]) -> list[str]:
    """That no likelihood of a task's choices was answered, and why, as a note; none if one was."""
    if all(one.unweighed and max(one.logprobs or [0.0]) == float("-inf") for one in outcomes):
        return [f"there are no likelihoods of the choices: {outcomes[0].unweighed}"]
    return []


def _why(outcomes: list[Outcome], metric: str) -> list[str]:
    """Why the first item that was not answered was not."""
    failed = (one.unwritten if metric == WRITTEN else one.unweighed for one in outcomes)
    return [f"not answered, for instance: {why}" for why in failed if why][:1]


def _group(planned: Planned) -> str:
    chinese = planned.label != planned.task.name
    return f"{planned.task.group}/zh" if chinese else planned.task.group


def _dials(planned: Planned, setup: Setup) -> list[str]:
    turned = [f"seed={setup.seed}"] if setup.seed else []
    turned += [f"{name}={value}" for name, value in setup.dials.items() if name in planned.task.dials]
    return [f"{planned.label} with {', '.join(turned)}"] if turned else []


def _average(name: str, scores: list[Score], values: list[list[float]]) -> Score:
    low, high = interval_of_average(values)
    chances = [score.chance for score in scores if score.chance is not None]
    first, label = scores[0], f"{name}_zh" if scores[0].group.endswith("/zh") else name
    return Score(
        task=label,
        metric=first.metric,
        value=sum(score.value for score in scores) / len(scores),
        low=low,
        high=high,
        items=sum(score.items for score in scores),
        group=first.group,
        shots=first.shots,
        chance=sum(chances) / len(chances) if len(chances) == len(scores) else None,
        cut=sum(score.cut for score in scores),
        failed=sum(score.failed for score in scores),
        published=published(label) if first.metric == WRITTEN else {},
    )


def _buckets(planned: Planned, outcomes: list[Outcome], setup: Setup) -> list[Score]:
    by_bucket: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_bucket.setdefault(one.item.bucket, []).append(one)
    if len(by_bucket) < 2:
        return []
    scores = []
    for bucket, mine in sorted(by_bucket.items(), key=lambda pair: _numbers(pair[0])):
        score = _score(Planned(planned.task, f"{planned.label} {bucket}", []), mine, WRITTEN, setup)
        assert score is not None
        scores.append(score)
    return [Score(**{**vars(score), "group": BUCKETS, "notes": []}) for score in scores]


def _numbers(bucket: str) -> list[int]:
    return [int(part.partition("=")[2]) for part in bucket.split()]
