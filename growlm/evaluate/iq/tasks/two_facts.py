"""Two supporting facts: where is a thing? One sentence says who has or had it, another where he is or was."""

from __future__ import annotations

from growlm.evaluate.iq.task import NOUN, Dial, Generated, Item, Maker, shots_dial
from growlm.evaluate.iq.tasks.story import EN, ZH, World


def _one(maker: Maker) -> tuple[str, str]:
    words = ZH if maker.zh else EN
    length = maker.dial("distractors") + 2
    while True:
        world = World(words, maker.draws)
        while len(world.told) < length:
            world.move() if maker.draws.below(2) else world.handle()
        if known := world.things():
            what = maker.draws.choice(sorted(known))
            return world.ask(words.thing.format(what=what)), known[what]


def generate(maker: Maker) -> Item:
    """A thing is where its holder last went, or where he was when he put it down."""
    *shots, (query, target) = maker.draws.distinct(lambda: _one(maker), maker.dial("shots") + 1)
    places = len((ZH if maker.zh else EN).places)
    return Item(query, target, shots=tuple(shots), delimiter="" if maker.zh else " ", chance=1 / places)


TASK = Generated(
    name="two_facts",
    group="iq/interference",
    ability="chain two facts that stand apart, among others of the same kind",
    items=300,
    dials={
        "shots": shots_dial(5),
        "distractors": Dial(tuple(range(4, 13)), 0, 1000, "sentences that do not matter"),
    },
    pattern=NOUN,
    generate=generate,
)
