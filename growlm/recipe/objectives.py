"""What is learnt: language, teacher signals (FreeLM, 2305.01616) and answers to instructions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from growlm.recipe.running import Table

Objective = Literal["language", "teacher", "instruction"]
OBJECTIVES: tuple[Objective, ...] = ("language", "teacher", "instruction")
USUAL: dict[str, Objective] = {"text": "language", "signals": "teacher", "instructions": "instruction"}
"""The objective of a source by its kind in the prepared data."""


class ObjectivesTable(Table):
    """What is learnt from each source. How often a source is drawn is its weight in the mixture; how much
    one learnt token of an objective counts in the loss is the objective's weight here."""

    sources: dict[str, Objective] = Field(
        default_factory=dict,
        description="Objective of a source: `language` (all tokens), `teacher` (the signal alone) or "
        "`instruction`; unset means by how it was prepared.",
    )
    instruction_loss: Literal["answers", "all"] = Field(
        "answers", description="instruction: which tokens are learnt."
    )
    language: float = Field(1.0, gt=0, description="Weight of a token of running text.")
    teacher: float = Field(1.0, gt=0, description="Weight of a signal token.")
    instruction: float = Field(1.0, gt=0, description="Weight of a token of an answer.")
    head: Literal["tokens", "classification"] = Field(
        "tokens",
        description="How signals are learnt: as tokens among all (FLM-101B), or as two classes (FreeLM) "
        "that are told apart by their two rows of the head alone.",
    )

    def weight(self, name: Objective) -> float:
        """What a learnt token of it counts in the loss."""
        return {"language": self.language, "teacher": self.teacher, "instruction": self.instruction}[name]
