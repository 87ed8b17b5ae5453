"""CLUE-IQ, CSL: are all keywords an abstract's own?"""

from __future__ import annotations

from typing import Any

from growlm.evaluate.iq.symbolic import Symbolic, label_shots


def query(row: dict[str, Any]) -> str:
    """Of `abst`, `keyword` (a list)."""
    return f"摘要：{row['abst'].strip()}\n关键词：{'、'.join(row['keyword'])}\n关系："


TASK = Symbolic(
    name="clue_iq_csl",
    group="iq/clue",
    ability="learn from examples which unknown symbol means that keywords belong to an abstract",
    items=208,
    dials=label_shots(2),
    validation=("csl-dev", "csl-val", "csl-validation", "csl-test-public"),
    train=("csl-train", "csl-train-few"),
    rows=(2838, 3000),
    labels=("0", "1"),
    instruction="判断关键词与摘要之间的关系。",
    read=query,
    zh=True,
)
