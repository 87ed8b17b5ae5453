"""Head slicing: keep as many characters of the beginning as the examples do."""

from __future__ import annotations

from growlm.evaluate.iq.task import Dial, Generated, Item, Maker, shots_dial
from growlm.evaluate.iq.tasks.patterns import lengths, mine


def generate(maker: Maker) -> Item:
    """`GFcdc -> GF`: how many is one number for all examples of an item."""
    kept = maker.dial("keep")
    return mine(maker, lambda text: text[:kept])


TASK = Generated(
    name="head_slicing",
    group="iq/patterns",
    ability="find how much of the beginning all examples keep, and keep as much of another",
    items=100,
    dials={
        "shots": shots_dial(5),
        "length": lengths(4),
        "keep": Dial((1, 2, 3), 1, 3, "characters kept"),
    },
    generate=generate,
)
