"""Multiple key retrieval: several keys in much text of no interest; what is one of them?"""

from __future__ import annotations

from growlm.evaluate.iq.task import Dial, Generated, Item, Maker, shots_dial
from growlm.evaluate.iq.tasks.words import CAPITALS, SMALL

_EN = {
    "begin": "There is important information hidden in a lot of irrelevant text. Find it and remember it.",
    "filler": "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.",
    "key": "The pass key of {name} is {key}. Remember it.",
    "ask": "What is the pass key of {name}? The pass key of {name} is",
}
_ZH = {
    "begin": "下面的大量无关文字里藏着重要的信息。请找到并记住它。",
    "filler": "草是绿的。天是蓝的。太阳是黄的。我们走吧。去了又回来。",
    "key": "{name}的密钥是{key}。请记住它。",
    "ask": "{name}的密钥是什么？{name}的密钥是",
}


def _one(maker: Maker, keys: int, filler: int) -> tuple[str, str]:
    draws, words = maker.draws, _ZH if maker.zh else _EN
    names = draws.distinct(lambda: draws.text(CAPITALS, 4), keys)
    length = maker.dial("length")
    values = draws.distinct(lambda: draws.text(SMALL + "0123456789", length), keys)
    told = [words["key"].format(name=name, key=key) for name, key in zip(names, values, strict=True)]
    places = set(draws.sample(range(filler + keys), keys))
    following = iter(told)
    text = [next(following) if at in places else words["filler"] for at in range(filler + keys)]
    asked = draws.below(keys)
    lines = [words["begin"], ("" if maker.zh else " ").join(text), words["ask"].format(name=names[asked])]
    return "\n".join(lines), values[asked]


def generate(maker: Maker) -> Item:
    """Number of keys and amount of filler go through all their pairs, item by item."""
    steps = len(TASK.dials["keys"].values)
    keys, filler = maker.step("keys", maker.index), maker.step("filler", maker.index // steps)
    *shots, (query, target) = maker.draws.distinct(lambda: _one(maker, keys, filler), maker.dial("shots") + 1)
    return Item(
        query,
        target,
        shots=tuple(shots),
        delimiter="" if maker.zh else " ",
        chance=1 / keys,
        bucket=f"keys={keys} filler={filler}",
    )


TASK = Generated(
    name="key_retrieval",
    group="iq/interference",
    ability="remember several facts through a long text of no interest, and tell one from the others",
    items=300,
    dials={
        "shots": shots_dial(0, 4),
        "keys": Dial((2, 4, 8, 16), 1, 1000, "keys in the text"),
        "filler": Dial((4, 16, 48), 0, 100_000, "repetitions of the filler, about 26 tokens each"),
        "length": Dial((6,), 4, 64, "characters of a key"),
    },
    pattern=r"\A\W*([A-Za-z0-9]+)",
    generate=generate,
)
