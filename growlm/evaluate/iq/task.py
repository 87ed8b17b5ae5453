"""What a task of the IQ suite is: how its items are made, and when an answer is right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from growlm.errors import RecipeError
from growlm.evaluate.files import Folder
from growlm.evaluate.iq.draws import Draws
from growlm.recipe.keys import did_you_mean

VERSION = 1
"""Of the suite: another version makes other items of the same seed."""
Language = Literal["en", "zh"]
LINE = r"(?s)\A\s*(.*?)\s*\Z"
"""The whole answer without the space around it; answers end at the first line break."""
NOUN = r"(?s)\A\s*(?:the )?(.*?)\s*[.。]?\s*\Z"
"""The same without an article before it and a full stop after it."""


@dataclass(frozen=True)
class Dial:
    """A number that sets how hard a task is."""

    values: tuple[int, ...]
    """What an item's is drawn from, unless it is set."""
    low: int
    high: int
    """What it can be set to."""
    meaning: str


@dataclass(frozen=True)
class Item:
    """A question: the model goes on after `prompt`, and is right if it goes on with `target`."""

    query: str
    target: str
    instruction: str = ""
    shots: tuple[tuple[str, str], ...] = ()
    """Queries with their answers."""
    delimiter: str = " "
    """Between a query and its answer."""
    separator: str = "\n\n"
    """Between shots."""
    choices: tuple[str, ...] = ()
    """The possible answers, where the likelihoods of all are compared."""
    chance: float | None = None
    """How often a guess among what can be the answer is right; None where guesses are hopeless."""
    bucket: str = ""
    """What it is counted with, apart from the whole task."""
    task: str = ""
    index: int = 0

    @property
    def prompt(self) -> str:
        """What the model is shown: it ends where the answer begins, without the delimiter."""
        shots = [f"{query}{self.delimiter}{answer}" for query, answer in self.shots]
        return self.separator.join([*filter(None, [self.instruction]), *shots, self.query])


@dataclass(frozen=True)
class Setup:
    """How the items of a task are to be made."""

    seed: int = 0
    language: Language = "en"
    items: int | None = None
    """None: as many as were published."""
    dials: Mapping[str, int] = field(default_factory=dict)
    data_dir: Path | None = None
    """Where the labelled sets of symbolic mapping are."""

    @cached_property
    def folder(self) -> Folder | None:
        """What is in `data_dir`, listed once. Raises DataError: no such folder."""
        return None if self.data_dir is None else Folder(self.data_dir)


@dataclass(frozen=True)
class Task:
    """A task and its rules; `Generated` and `Symbolic` make its items."""

    name: str
    group: str
    """`iq/rules`, ..."""
    ability: str
    """What it asks of a model, in a sentence."""
    items: int
    """As many as the published scores are of."""
    dials: Mapping[str, Dial]
    pattern: str = LINE
    """The one group of this is the answer in what the model wrote."""
    stop: tuple[str, ...] = ("\n",)

    def label(self, setup: Setup) -> str:
        """Its name in tables: the Chinese version of a task made in both languages is another task."""
        return self.name if setup.language == "en" else f"{self.name}_zh"

    def make(self, setup: Setup) -> tuple[list[Item], list[str]]:
        """Items, and what is to be said about them. The first n items do not depend on how many are made.

        Raises RecipeError for a dial out of its range, DataError for damaged data.
        """
        raise NotImplementedError

    def answer(self, text: str) -> str:
        """The answer in a model's text; it is right if it is the target, character for character."""
        found = re.search(self.pattern, text)
        return found[1].strip() if found else ""

    def check(self, dials: Mapping[str, int]) -> None:
        """Raise RecipeError for a dial out of its range; dials of other tasks are none of its business."""
        for name, value in dials.items():
            dial = self.dials.get(name)
            if dial and not dial.low <= value <= dial.high:
                raise RecipeError(
                    f"{self.name} cannot have {name}={value}",
                    where=flag(name, value),
                    why=f"{name}: {dial.meaning}, {dial.low} to {dial.high}",
                    fix=flag(name, min(max(value, dial.low), dial.high)),
                )


class Maker:
    """What a generator makes one item with: its draws, language and dials."""

    def __init__(self, task: Task, setup: Setup, index: int) -> None:
        self.draws = Draws("iq", VERSION, task.name, setup.language, setup.seed, index)
        self.zh = setup.language == "zh"
        self.index = index
        self._dials = {
            name: (setup.dials[name],) if name in setup.dials else dial.values
            for name, dial in task.dials.items()
        }

    def dial(self, name: str) -> int:
        """What the dial is set to, or a draw from its usual values."""
        return self.draws.choice(self._dials[name])

    def step(self, name: str, place: int) -> int:
        """What the dial is set to, or one of its usual values after the other."""
        return self._dials[name][place % len(self._dials[name])]


@dataclass(frozen=True)
class Generated(Task):
    """A task whose items are made of nothing but random draws."""

    generate: Callable[[Maker], Item] = field(kw_only=True)

    def make(self, setup: Setup) -> tuple[list[Item], list[str]]:
        """See `Task`; any number of items."""
        self.check(setup.dials)
        count = self.items if setup.items is None else setup.items
        made = (self.generate(Maker(self, setup, index)) for index in range(count))
        label = self.label(setup)
        return [replace(item, task=label, index=index) for index, item in enumerate(made)], []


def flag(name: str, value: int) -> str:
    """How a user turns a dial."""
    return f"--shots {value}" if name == "shots" else f"--dial {name}={value}"


def check_dials(tasks: list[Task], dials: Mapping[str, int]) -> None:
    """Raise RecipeError for a dial that none of the tasks has."""
    known = {name: dial for task in tasks for name, dial in task.dials.items()}
    for name in dials:
        if name not in known:
            close = did_you_mean(name, known)
            having = [f"{task.name}: {', '.join(task.dials)}" for task in tasks]
            raise RecipeError(
                f"No task here has the dial {name!r}",
                where=f"--dial {name}={dials[name]}",
                why="; ".join(having),
                fix=f"did you mean --dial {close}={dials[name]}?" if close else "turn one of these",
            )


def shots_dial(usual: int, most: int = 16) -> Dial:
    """The dial every task has."""
    return Dial((usual,), 0, most, "solved examples before the question")
