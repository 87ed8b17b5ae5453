"""Counting: go on with the whole numbers up to the one that was named, and stop there."""

from __future__ import annotations

from growlm.evaluate.iq.task import Dial, Generated, Item, Maker, shots_dial

_SHOWN = 3


def _one(maker: Maker) -> tuple[str, str]:
    first = _start(maker)
    numbers = [str(first + step) for step in range(maker.dial("length"))]
    comma = "，" if maker.zh else ", "
    shown = comma.join(numbers[:_SHOWN]) + comma.strip()
    if maker.zh:
        query = f"让我们从{numbers[0]}数到{numbers[-1]}：{shown}"
    else:
        query = f"Let's count from {numbers[0]} to {numbers[-1]}: {shown}"
    return query, comma.join(numbers[_SHOWN:])


def _start(maker: Maker) -> int:
    digits = maker.dial("digits")
    low = 10 ** (digits - 1)
    return low + maker.draws.below(9 * low)


def generate(maker: Maker) -> Item:
    """`Let's count from 10010 to 10035: 10010, 10011, 10012,`."""
    *shots, (query, target) = maker.draws.distinct(lambda: _one(maker), maker.dial("shots") + 1)
    return Item(query, target, shots=tuple(shots), delimiter="" if maker.zh else " ")


TASK = Generated(
    name="counting",
    group="iq/rules",
    ability="apply a rule that is only named, as long as it says, and stop",
    items=148,
    dials={
        "shots": shots_dial(0),
        "length": Dial(tuple(range(10, 31)), 4, 500, "numbers from the first to the last"),
        "digits": Dial((5,), 2, 12, "digits of the first number"),
    },
    pattern=r"\A\s*(\d+(?:(?:, |，)\d+)*)",
    generate=generate,
)
