"""SuperGLUE-IQ, RTE: does the hypothesis follow from the premise?"""

from __future__ import annotations

from typing import Any

from growlm.evaluate.iq.symbolic import Symbolic, label_shots


def query(row: dict[str, Any]) -> str:
    """Of `premise`, `hypothesis`."""
    return f"Premise: {row['premise'].strip()}\nHypothesis: {row['hypothesis'].strip()}\nRelationship:"


TASK = Symbolic(
    name="superglue_iq_rte",
    group="iq/superglue",
    ability="learn from examples which unknown symbol means that one text follows from another",
    items=277,
    dials=label_shots(4),
    validation=("rte-val", "rte-validation", "rte-dev"),
    train=("rte-train",),
    rows=(277,),
    labels=("entailment", "not_entailment"),
    numbers=("0", "1"),
    instruction="Given the premise and hypothesis, determine the relationship between the two sentences.",
    read=query,
)
