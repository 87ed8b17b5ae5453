"""The items of the suite put to a model, and whether its answers are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from growlm.data.progress import Progress
from growlm.evaluate.iq.task import Item, Task
from growlm.inference.asking import SPARE
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Model, Prompt


@dataclass(frozen=True)
class Planned:
    """A task with its items."""

    task: Task
    label: str
    """Its name in tables."""
    items: list[Item]
    notes: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What became of an item."""

    item: Item
    text: str = ""
    """What the model wrote."""
    answer: str = ""
    """What counts of that."""
    right: bool = False
    logprobs: list[float] | None = None
    """Of the choices."""
    likeliest: bool | None = None
    """Whether the likeliest choice is the target; None for a task without choices."""
    cut: int = 0
    """Tokens of the prompt that did not fit."""
    unwritten: str = ""
    """Why there is no written answer, if there is none."""
    unweighed: str = ""
    """The same of the likelihoods: why one of them or all are missing."""

    def line(self) -> dict[str, Any]:
        """The item's line of items.jsonl."""
        item = self.item
        told: dict[str, Any] = {"task": item.task, "index": item.index, "right": self.right}
        told |= {"answer": self.answer, "target": item.target, "text": self.text, "cut": self.cut}
        if item.choices:
            known = [None if x == float("-inf") else x for x in self.logprobs or []]  # JSON has no infinity
            told |= {"choices": item.choices, "logprobs": known, "likeliest": self.likeliest}
        told |= {"failed": self.unwritten} if self.unwritten else {}
        told |= {"failed_likelihood": self.unweighed} if self.unweighed else {}
        return told | {"prompt": item.prompt}


def prompt_of(task: Task, item: Item) -> Prompt:
    """The request for a written answer; long enough for the target in any tokenizer: none needs more than a
    token for a byte."""
    most = len(item.target.encode()) + SPARE
    return Prompt(item.prompt, max_tokens=most, stop=task.stop, expected=item.target)


def ask(model: Model, plan: Sequence[Planned], *, quiet: bool = False) -> list[list[Outcome]]:
    """The outcome of every item, in order; all tasks are asked together, so that batches are full."""
    outcomes = [[Outcome(item) for item in planned.items] for planned in plan]
    flat = [(planned.task, one) for planned, mine in zip(plan, outcomes, strict=True) for one in mine]
    chosen = [(one, place) for _, one in flat for place in range(len(one.item.choices))]
    with Progress(quiet=quiet).task("iq", len(flat) + len(chosen), "requests") as advance:
        for index, answer in model.completions([prompt_of(task, one.item) for task, one in flat]):
            _written(*flat[index], answer)
            advance(1)
        for index, answer in _likelihoods(model, chosen):
            _weighed(*chosen[index], answer)
            advance(1)
    return outcomes


def _likelihoods(
    model: Model, chosen: list[tuple[Outcome, int]]
) -> Iterator[tuple[int, Likelihood | Failed]]:
    if not chosen:
        return iter(())
    items = [(one.item, one.item.choices[place]) for one, place in chosen]
    return model.likelihoods([Choice(item.prompt, item.delimiter + symbol) for item, symbol in items])


def _written(task: Task, outcome: Outcome, answer: Completion | Failed) -> None:
    if isinstance(answer, Failed):
        outcome.unwritten = answer.why
        return
    outcome.text, outcome.answer = answer.text, task.answer(answer.text)
    outcome.right = outcome.answer == outcome.item.target
    outcome.cut = max(outcome.cut, answer.cut)


def _weighed(outcome: Outcome, place: int, answer: Likelihood | Failed) -> None:
    item = outcome.item
    if outcome.logprobs is None:
        outcome.logprobs, outcome.likeliest = [float("-inf")] * len(item.choices), False
    if isinstance(answer, Failed):
        outcome.unweighed, outcome.likeliest = answer.why, False
        return
    outcome.logprobs[place] = answer.logprob
    best = max(range(len(item.choices)), key=outcome.logprobs.__getitem__)
    outcome.likeliest = not outcome.unweighed and item.choices[best] == item.target
    outcome.cut = max(outcome.cut, answer.cut)
