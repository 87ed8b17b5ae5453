"""SuperGLUE-IQ, BoolQ: does the passage say yes to the question?"""

from __future__ import annotations

from typing import Any

from growlm.evaluate.iq.symbolic import Symbolic, label_shots


def query(row: dict[str, Any]) -> str:
    """Of `passage`, `question`."""
    return f"Passage: {row['passage'].strip()}\nQuestion: {row['question'].strip()}?\nAnswer:"


TASK = Symbolic(
    name="superglue_iq_boolq",
    group="iq/superglue",
    ability="learn from examples which unknown symbol means that a passage says yes to a question",
    items=299,
    dials=label_shots(4),
    validation=("boolq-val", "boolq-validation", "boolq-dev"),
    train=("boolq-train",),
    rows=(3270,),
    labels=("false", "true"),
    numbers=("0", "1"),
    instruction="Read the passage and answer the question.",
    read=query,
)
