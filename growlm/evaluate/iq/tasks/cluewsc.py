"""CLUE-IQ, CLUEWSC2020: does the pronoun refer to the candidate?"""

from __future__ import annotations

from typing import Any

from growlm.evaluate.iq.symbolic import Symbolic, label_shots


def query(row: dict[str, Any]) -> str:
    """Of `text` and the spans of `target` (or of the row): span 2, the pronoun, gets asterisks.

    `span2_index` counts characters.
    """
    target = row.get("target", row)
    text, pronoun, place = row["text"], target["span2_text"], int(target["span2_index"])
    marked = f"{text[:place]}*{text[place : place + len(pronoun)]}*{text[place + len(pronoun) :]}"
    return f"文本：{marked.strip()}\n候选：{target['span1_text']}\n关系："


TASK = Symbolic(
    name="clue_iq_cluewsc",
    group="iq/clue",
    ability="learn from examples which unknown symbol means that a pronoun refers to a candidate",
    items=300,
    dials=label_shots(4),
    validation=("cluewsc-dev", "cluewsc2020-dev", "cluewsc-val", "cluewsc-validation", "cluewsc-test-public"),
    train=("cluewsc-train", "cluewsc2020-train", "cluewsc-train-few"),
    rows=(304, 976),
    labels=("false", "true"),
    numbers=("1", "0"),
    instruction="判断星号之间的代词与候选之间的关系。",
    read=query,
    zh=True,
)
