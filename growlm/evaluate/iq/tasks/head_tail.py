"""Head & tail: put the same strings before and after as the examples do."""

from __future__ import annotations

from growlm.evaluate.iq.task import Dial, Generated, Item, Maker, shots_dial
from growlm.evaluate.iq.tasks.patterns import lengths, mine, random_text


def generate(maker: Maker) -> Item:
    """`IHFJd -> JHcIIHFJdFgcB`: head `JHcI` and tail `FgcB` are one for all examples of an item."""
    head = random_text(maker, maker.dial("head"))
    tail = random_text(maker, maker.dial("tail"))
    return mine(maker, lambda text: f"{head}{text}{tail}")


TASK = Generated(
    name="head_tail",
    group="iq/patterns",
    ability="find what all examples add to their input, and add it to another",
    items=100,
    dials={
        "shots": shots_dial(5),
        "length": lengths(3),
        "head": Dial((2, 3, 4), 1, 100, "characters before"),
        "tail": Dial((2, 3, 4), 1, 100, "characters after"),
    },
    generate=generate,
)
