"""Copies and contradictions among the items of all tasks, found by what each makes true or false."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import xxhash

from growlm.data.signals.items import Item
from growlm.data.signals.templates import CHOICE, Template

Claim = tuple[bytes, bool]
"""Hash of a text with a statement about it, and whether that is true."""


@dataclass(frozen=True)
class Contradiction:
    """Two items of which one makes true what the other makes false."""

    first: str
    second: str


@dataclass(frozen=True)
class Sifted:
    """What is left of the items of each task, in order, and what is not."""

    items: list[list[Item]]
    copies: list[int]
    contradictory: list[int]
    contradictions: list[Contradiction]


def sift(tasks: Iterable[tuple[Template, list[Item]]]) -> Sifted:
    """Leave out copies (the first stays), and every item that contradicts another one."""
    tasks = list(tasks)
    kept: list[list[tuple[Item, list[Claim]]]] = []
    copies: list[int] = []
    seen: set[bytes] = set()
    owners: dict[Claim, str] = {}
    for template, items in tasks:
        mine: list[tuple[Item, list[Claim]]] = []
        for item in items:
            claims = list(_claims(template, item))
            identity = b"".join(sorted(key for key, true in claims if true)) or claims[0][0] + b"-"
            if identity in seen:
                continue
            seen.add(identity)
            mine.append((item, claims))
            for claim in claims:
                owners.setdefault(claim, item.where)
        kept.append(mine)
        copies.append(len(items) - len(mine))
    disputes = [
        sorted((where, owners[key, False]))
        for (key, true), where in owners.items()
        if true and (key, False) in owners
    ]
    left = [[item for item, claims in mine if _undisputed(claims, owners)] for mine in kept]
    lost = [len(mine) - len(some) for mine, some in zip(kept, left, strict=True)]
    return Sifted(left, copies, lost, [Contradiction(*pair) for pair in dict.fromkeys(map(tuple, disputes))])


def _undisputed(claims: Iterable[Claim], owners: dict[Claim, str]) -> bool:
    return not any((key, not true) in owners for key, true in claims)


def _claims(template: Template, item: Item) -> Iterator[Claim]:
    """What an item says, in the first wording of each of its statements."""
    if template.form == "labels":
        for label in dict.fromkeys(template.labels.values()):
            yield _claim(item, template.statements[label][0].fill(item.values), label == item.answer)
    elif template.form == "choices":
        for choice in (item.answer, *item.wrong):
            words = {**item.values, CHOICE: choice}
            yield _claim(item, template.statements[""][0].fill(words), choice == item.answer)
    else:
        yield _claim(item, template.statements[""][0].fill(item.values), item.answer == "true")


def _claim(item: Item, statement: str, true: bool) -> Claim:
    return xxhash.xxh3_128_digest(f"{item.text}\0{statement}".encode()), true
