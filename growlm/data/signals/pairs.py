"""Items as propositions, so that in each wording as many are true as are false.

Labels: the items, in blocks of one label, stand in a circle. The false statement of each is the true one of
the item a block's length ahead (the largest block's), which has another label; so each wording of each label
is used once as true and once as false. A label that more than half of the items have loses some of them.

Choices: one wording with the right choice and with a wrong one. Truth: as many true as false items, wordings
dealt out to both alike.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from growlm.data.signals.items import Item
from growlm.data.signals.patterns import Pattern
from growlm.data.signals.templates import CHOICE, Template
from growlm.errors import DataError


class Proposition(NamedTuple):
    """A statement about the text of an item."""

    item: Item
    label: str
    """Whose wording it is; "" where all items share theirs."""
    wording: Pattern
    statement: str
    true: bool


def propositions(
    template: Template, items: Sequence[Item], pairs: int, draw: random.Random
) -> Iterator[Proposition]:
    """At most `pairs` true and as many false statements of each item, no statement twice.

    Raises DataError if all items have one label: what is always true, or always false, is no signal.
    """
    items = list(items)
    draw.shuffle(items)
    make = {"labels": _of_labels, "choices": _of_choices, "truth": _of_truth}[template.form]
    return make(template, items, pairs, draw)


def _of_labels(
    template: Template, items: list[Item], pairs: int, draw: random.Random
) -> Iterator[Proposition]:
    del draw
    blocks = _blocks(template, items)
    rest = sum(map(len, blocks[1:]))
    circle = [item for block in (blocks[0][:rest], *blocks[1:]) for item in block]
    ahead = min(len(blocks[0]), rest)
    turns = min(pairs, *(len(template.statements[block[0].answer]) for block in blocks))
    for index, item in enumerate(circle):
        other = (index + ahead) % len(circle)
        for turn in range(turns):
            for label, place in ((item.answer, index), (circle[other].answer, other)):
                wordings = template.statements[label]
                wording = wordings[(place + turn) % len(wordings)]
                yield Proposition(item, label, wording, wording.fill(item.values), label == item.answer)


def _of_choices(
    template: Template, items: list[Item], pairs: int, draw: random.Random
) -> Iterator[Proposition]:
    wordings = template.statements[""]
    for index, item in enumerate(items):
        wrong = draw.sample(item.wrong, len(item.wrong))
        for turn in range(min(pairs, len(wordings))):
            wording = wordings[(index + turn) % len(wordings)]
            for choice in (item.answer, wrong[turn % len(wrong)]):
                statement = wording.fill({**item.values, CHOICE: choice})
                yield Proposition(item, "", wording, statement, choice == item.answer)


def _of_truth(
    template: Template, items: list[Item], pairs: int, draw: random.Random
) -> Iterator[Proposition]:
    del draw
    wordings = template.statements[""]
    blocks = _blocks(template, items)
    for block in blocks:
        for index, item in enumerate(block[: len(blocks[1])]):
            for turn in range(min(pairs, len(wordings))):
                wording = wordings[(index + turn) % len(wordings)]
                yield Proposition(item, "", wording, wording.fill(item.values), item.answer == "true")


def _blocks(template: Template, items: Sequence[Item]) -> list[list[Item]]:
    """The items of each answer, most first. Raises DataError if there is one answer only."""
    blocks: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        blocks[item.answer].append(item)
    if len(blocks) < 2:
        raise DataError(
            f"All items of the task {template.name!r} have one label: {', '.join(blocks) or 'there is none'}",
            where=items[0].where if items else "",
            why="its statement would always be true and any other always false, which teaches nothing",
            fix="add rows with other labels, or leave the task out",
        )
    return sorted(blocks.values(), key=lambda block: (-len(block), block[0].answer))
