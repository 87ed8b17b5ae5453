"""CLUE-IQ, AFQMC: do two questions to a bank mean the same?"""

from __future__ import annotations

from typing import Any

from growlm.evaluate.iq.symbolic import Symbolic, label_shots


def query(row: dict[str, Any]) -> str:
    """Of `sentence1`, `sentence2`."""
    return f"句子一：{row['sentence1'].strip()}\n句子二：{row['sentence2'].strip()}\n关系："


TASK = Symbolic(
    name="clue_iq_afqmc",
    group="iq/clue",
    ability="learn from examples which unknown symbol means that two questions are one",
    items=300,
    dials=label_shots(4),
    validation=("afqmc-dev", "afqmc-val", "afqmc-validation"),
    train=("afqmc-train",),
    rows=(4316,),
    labels=("0", "1"),
    instruction="判断两个句子的意思之间的关系。",
    read=query,
    zh=True,
)
