"""What the tasks of pattern mining share: examples without a word of instruction, one a line."""

from __future__ import annotations

from collections.abc import Callable

from growlm.evaluate.iq.task import Dial, Item, Maker
from growlm.evaluate.iq.tasks.words import CHARACTERS, LETTERS


def lengths(low: int) -> Dial:
    """Of the input, at least `low`."""
    return Dial(tuple(range(low, 9)), low, 200, "characters of the input")


def random_text(maker: Maker, length: int) -> str:
    """Of the characters the language's version is made of."""
    return maker.draws.text(CHARACTERS if maker.zh else LETTERS, length)


def mine(maker: Maker, rule: Callable[[str], str]) -> Item:
    """`input -> output` of a rule, once more without the output."""
    count = maker.dial("shots") + 1
    *shown, asked = maker.draws.distinct(lambda: random_text(maker, maker.dial("length")), count)
    shots = tuple((f"{text} ->", rule(text)) for text in shown)
    return Item(f"{asked} ->", rule(asked), shots=shots, separator="\n")
