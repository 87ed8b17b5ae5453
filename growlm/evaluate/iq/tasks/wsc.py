"""SuperGLUE-IQ, WSC: does the pronoun refer to the candidate?"""

from __future__ import annotations

from typing import Any

from growlm.evaluate.iq.symbolic import Symbolic, label_shots


def query(row: dict[str, Any]) -> str:
    """Of `text` and the spans of `target` (or of the row): span 2, the pronoun, gets asterisks.

    `span2_index` counts words between spaces.
    """
    target = row.get("target", row)
    words, place = row["text"].split(" "), int(target["span2_index"])
    length = len(target["span2_text"].split(" "))
    words[place : place + length] = [f"*{' '.join(words[place : place + length])}*"]
    return f"Text: {' '.join(words).strip()}\nCandidate: {target['span1_text']}\nReference:"


TASK = Symbolic(
    name="superglue_iq_wsc",
    group="iq/superglue",
    ability="learn from examples which unknown symbol means that a pronoun refers to a candidate",
    items=103,
    dials=label_shots(4),
    validation=("wsc-val", "wsc-validation", "wsc-dev"),
    train=("wsc-train",),
    rows=(104,),
    labels=("false", "true"),
    numbers=("0", "1"),
    instruction="Determine how the pronoun between asterisks and the candidate are related.",
    read=query,
)
