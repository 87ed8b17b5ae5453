"""Replace lowercase: make every capital letter small, and change nothing else."""

from __future__ import annotations

from growlm.evaluate.iq.task import Dial, Generated, Item, Maker, shots_dial
from growlm.evaluate.iq.tasks.words import CAPITALS, CHINESE, SMALL

_EN = "For the following text, please modify the uppercase letters to lowercase.\nText: {text}\nAnswer:"
_ZH = "请把下面文本中的大写字母改成小写字母。\n文本：{text}\n答案："


def _one(maker: Maker) -> tuple[str, str]:
    draws = maker.draws
    words = [_mixed(maker, maker.dial("length")) for _ in range(maker.dial("words"))]
    text = "".join(draws.choice(CHINESE) + word for word in words) if maker.zh else " ".join(words)
    return (_ZH if maker.zh else _EN).format(text=text), text.lower()


def _mixed(maker: Maker, length: int) -> str:
    """Random letters, about half of them capitals, the first of them for sure."""
    return maker.draws.text(CAPITALS, 1) + maker.draws.text(CAPITALS + SMALL, length - 1)


def generate(maker: Maker) -> Item:
    """Random letters, in Chinese between words."""
    *shots, (query, target) = maker.draws.distinct(lambda: _one(maker), maker.dial("shots") + 1)
    return Item(query, target, shots=tuple(shots), delimiter="" if maker.zh else " ")


TASK = Generated(
    name="replace_lowercase",
    group="iq/rules",
    ability="apply a rule in words to every letter of a text that makes no sense",
    items=300,
    dials={
        "shots": shots_dial(4),
        "words": Dial((1, 2, 3), 1, 100, "words of random letters"),
        "length": Dial(tuple(range(4, 11)), 2, 100, "letters of a word"),
    },
    generate=generate,
)
