"""CLUE-IQ, OCNLI: does the second sentence follow from the first, contradict it, or neither?"""

from __future__ import annotations

from typing import Any

from growlm.evaluate.iq.symbolic import Symbolic, label_shots


def query(row: dict[str, Any]) -> str:
    """Of `sentence1`, `sentence2`."""
    return f"前提：{row['sentence1'].strip()}\n假设：{row['sentence2'].strip()}\n关系："


TASK = Symbolic(
    name="clue_iq_ocnli",
    group="iq/clue",
    ability="learn from examples what three unknown symbols say of how two sentences are related",
    items=300,
    dials=label_shots(4),
    validation=("ocnli-dev", "ocnli-val", "ocnli-validation", "ocnli-test-public"),
    train=("ocnli-train", "ocnli-train-few"),
    rows=(2520, 2950),
    labels=("neutral", "entailment", "contradiction"),
    numbers=("0", "1", "2"),
    instruction="判断前提与假设两个句子之间的关系。",
    read=query,
    zh=True,
)
