"""Replace word: put another word wherever a given one stands, and change nothing else."""

from __future__ import annotations

from growlm.evaluate.iq.task import Dial, Generated, Item, Maker, shots_dial
from growlm.evaluate.iq.tasks.words import CAPITALS, CHINESE, ENGLISH, NAMES

_EN = (
    "In the following sentence, replace the specified word with the target word. "
    "word to replace: **{old}** target word: **{new}**\nSentence: {sentence}\nAnswer:"
)
_ZH = "在下面的句子中，把指定的词换成目标词。要换的词：**{old}** 目标词：**{new}**\n句子：{sentence}\n答案："


def _one(maker: Maker) -> tuple[str, str]:
    draws = maker.draws
    old, new = draws.distinct(lambda: _made_up(maker), 2)
    others = [draws.choice(CHINESE if maker.zh else ENGLISH) for _ in range(maker.dial("length"))]
    words = draws.shuffled([*others, *[old] * maker.dial("times")])
    end, space = ("。", "") if maker.zh else (".", " ")
    sentence = space.join(words) + end
    query = (_ZH if maker.zh else _EN).format(old=old, new=new, sentence=sentence)
    return query, space.join(new if word == old else word for word in words) + end


def _made_up(maker: Maker) -> str:
    return "".join(maker.draws.sample(NAMES, 3) if maker.zh else maker.draws.sample(CAPITALS, 4))


def generate(maker: Maker) -> Item:
    """A sentence of random words; the one to replace and its target are random letters."""
    *shots, (query, target) = maker.draws.distinct(lambda: _one(maker), maker.dial("shots") + 1)
    return Item(query, target, shots=tuple(shots), delimiter="" if maker.zh else " ")


TASK = Generated(
    name="replace_word",
    group="iq/rules",
    ability="apply a rule in words, with two made-up words in it, to a sentence that makes no sense",
    items=300,
    dials={
        "shots": shots_dial(4),
        "length": Dial(tuple(range(5, 11)), 1, 200, "other words of the sentence"),
        "times": Dial((1, 2), 1, 20, "how often the word stands in it"),
    },
    generate=generate,
)
