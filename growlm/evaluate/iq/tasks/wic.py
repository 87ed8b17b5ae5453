"""SuperGLUE-IQ, WiC: does the word mean the same in both sentences?"""

from __future__ import annotations

from typing import Any

from growlm.evaluate.iq.symbolic import Symbolic, label_shots


def query(row: dict[str, Any]) -> str:
    """Of `word`, `sentence1`, `sentence2`."""
    sentences = f"Sentence 1: {row['sentence1'].strip()}\nSentence 2: {row['sentence2'].strip()}"
    return f"Word: {row['word']}\n{sentences}\nMeaning:"


TASK = Symbolic(
    name="superglue_iq_wic",
    group="iq/superglue",
    ability="learn from examples which unknown symbol means that a word is used in one sense",
    items=300,
    dials=label_shots(4),
    validation=("wic-val", "wic-validation", "wic-dev"),
    train=("wic-train",),
    rows=(638,),
    labels=("false", "true"),
    numbers=("0", "1"),
    instruction="Determine how the meanings of the word in the two sentences are related.",
    read=query,
)
