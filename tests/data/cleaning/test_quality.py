import random
from collections import Counter

import pytest

from growlm.data.cleaning.quality import REASONS, quality
from tests.data.cleaning.real import documents

ENGLISH = """The law of gravitation was not found in one night, and it was not found by one man. Many had
asked why the stones fall and the moon does not, and most of them were content with an answer
out of an old book. It is told that an apple set him thinking; he said so himself, when he was
old and had visitors. What he did was to compare: the fall of a stone in a second, and the
fall of the moon away from its straight line in the same time. They agreed, he wrote, "pretty
nearly". Then he put the paper away for twenty years, for reasons that nobody knows.
"""
CHINESE = """万有引力定律不是一个晚上发现的，也不是一个人发现的。许多人问过，为什么石头会落下来，而月亮
不会；他们大多满足于旧书里的回答。据说一个苹果使他想到了这个问题，他年老的时候对客人这样说
过。他所做的就是比较：石头在一秒钟里落下多少，月亮在同样的时间里离开直线多少。他写道，两者
“相当接近”。然后他把这张纸放在一边，过了二十年才拿出来，其中的原因没有人知道。
"""
HTML = '<div class="item"><a href="/news/1.html" title="x">{}</a><br/>&nbsp;</div>\n'
WORDS = [
    "shoes",
    "cheap",
    "buy",
    "online",
    "store",
    "sale",
    "brand",
    "leather",
    "sport",
    "price",
    "best",
    "new",
]
GOODS = [
    "手机",
    "电脑",
    "批发",
    "价格",
    "厂家",
    "直销",
    "北京",
    "上海",
    "供应",
    "配件",
    "优惠",
    "品牌",
    "图片",
]


def keywords(words: list[str], separator: str, marks: str = "") -> str:
    draw = random.Random(1)
    return (
        separator.join(draw.choice(words) + str(draw.randrange(100)) * (i % 7 == 0) for i in range(300))
        + marks
    )


def test_good_text_in_both_languages_stays() -> None:
    assert quality(ENGLISH) is None
    assert quality(CHINESE) is None
    assert quality(ENGLISH + CHINESE) is None


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text[:40], "too short"),
        (lambda text: "".join(map(HTML.format, text.split())), "html"),
        (lambda text: text + "Privacy policy | Terms of use\n© All rights reserved\n" * 3, "boilerplate"),
        (lambda text: text + "首页\n上一篇 下一篇 返回顶部\n版权所有 京ICP备1号\n" * 3, "boilerplate"),
        (lambda text: text + "Lorem ipsum dolor sit amet.", "lorem ipsum"),
        (lambda text: "\n".join("- " + line for line in text.split("\n") if line), "bullets"),
        (lambda text: "\n".join(line + "…" for line in text.split("\n") if line), "ellipses"),
        (lambda text: " # ".join(text[i : i + 6] for i in range(0, len(text), 6)), "symbols"),
        (lambda text: text + "Click here to read the rest. 点击这里阅读全文。\n" * 12, "repeated lines"),
        (lambda text: text + " ".join(f"{i} 20{i}.5" for i in range(10, 99)), "not words"),
        (lambda text: (text.replace("\n", " ") + "\n") + text.replace("\n", "  "), "repeated n-grams"),
        (lambda text: text.encode().decode("latin-1"), "mojibake"),
        (lambda text: text.replace("\n", "\ufffd\ufffd\ufffd"), "mojibake"),
    ],
)  # fmt: skip
def test_each_rule_finds_what_it_is_for(text: str, spoil, reason: str) -> None:
    if reason == "mojibake" and text is ENGLISH and "\ufffd" not in spoil(text):
        text = text.replace('"', "”").replace(",", "—")
    assert quality(spoil(text)) == reason


@pytest.mark.parametrize(("encoding", "wrong"), [("utf-8", "gbk"), ("gbk", "latin-1"), ("utf-8", "latin-1")])
def test_chinese_decoded_by_the_wrong_table(encoding: str, wrong: str) -> None:
    assert quality(CHINESE.encode(encoding).decode(wrong, "replace")) == "mojibake"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (keywords(WORDS, " "), "no function words"),
        (keywords(WORDS, ", "), "no function words"),
        (keywords(GOODS, " "), "no function words"),
        (keywords(GOODS, "、"), "no function words"),
        (keywords([*WORDS, "the", "of", "in"], " "), "no sentences"),
        (keywords([*GOODS, "的", "和", "在"], " "), "no sentences"),
        (keywords(["a", "b", "c", "the", "of"], " ", "."), "word length"),
    ],
)
def test_lists_of_keywords_are_no_text(text: str, reason: str) -> None:
    assert quality(text) == reason


def test_the_first_reason_that_holds_is_the_one_given() -> None:
    order = [quality(text) for text in ("", HTML * 30, keywords(WORDS, " "))]
    assert [REASONS.index(reason or "") for reason in order] == sorted(
        REASONS.index(reason or "") for reason in order
    )


def test_accents_and_signs_of_good_text_are_no_mojibake() -> None:
    french = (
        "Les élèves, déjà très âgés, étaient là : « Où êtes-vous ? » À la forêt où naît l’été, ç’a été "
        "ainsi. Il est à la fin de la vie, et ce n’est pas une idée : elle le sait. Pas de feu sans fumée, "
    )
    assert quality(french + "le café. On ne le voit plus que dans les rêves de ceux qui l’ont aimé.") is None
    assert quality(CHINESE.replace("苹果", "××××").replace("月亮", "±5 °C")) is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("en-books", 0.005), ("zh-modern", 0.05)])
def test_hardly_any_good_real_text_is_left_out(name: str, most: float) -> None:
    answers = Counter(quality(text) for text in documents(name, every=3))
    assert answers[None] >= (1 - most) * answers.total(), answers
