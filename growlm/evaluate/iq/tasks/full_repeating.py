"""Full repeating: write the input twice, as the examples do."""

from __future__ import annotations

from growlm.evaluate.iq.task import Generated, Item, Maker, shots_dial
from growlm.evaluate.iq.tasks.patterns import lengths, mine


def generate(maker: Maker) -> Item:
    """`gEdcFa -> gEdcFagEdcFa`."""
    return mine(maker, lambda text: text * 2)


TASK = Generated(
    name="full_repeating",
    group="iq/patterns",
    ability="find that all examples repeat their input, and repeat another",
    items=100,
    dials={"shots": shots_dial(5), "length": lengths(3)},
    generate=generate,
)
