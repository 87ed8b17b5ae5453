"""Single supporting fact: where is a person? One sentence of the story says it."""

from __future__ import annotations

from growlm.evaluate.iq.task import NOUN, Dial, Generated, Item, Maker, shots_dial
from growlm.evaluate.iq.tasks.story import EN, ZH, World

_HANDLED = 4  # one sentence in so many is about a thing


def _one(maker: Maker) -> tuple[str, str]:
    world = World(ZH if maker.zh else EN, maker.draws)
    world.move()
    for _ in range(maker.dial("distractors")):
        world.move() if maker.draws.below(_HANDLED) else world.handle()
    who = maker.draws.choice(sorted(world.person_at))
    return world.ask(who), world.person_at[who]


def generate(maker: Maker) -> Item:
    """A person's last move is the fact; moves of others, earlier ones and things do not matter."""
    *shots, (query, target) = maker.draws.distinct(lambda: _one(maker), maker.dial("shots") + 1)
    places = len((ZH if maker.zh else EN).places)
    return Item(query, target, shots=tuple(shots), delimiter="" if maker.zh else " ", chance=1 / places)


TASK = Generated(
    name="single_fact",
    group="iq/interference",
    ability="follow one fact among others of the same kind",
    items=300,
    dials={
        "shots": shots_dial(5),
        "distractors": Dial(tuple(range(3, 10)), 0, 1000, "sentences that do not matter"),
    },
    pattern=NOUN,
    generate=generate,
)
