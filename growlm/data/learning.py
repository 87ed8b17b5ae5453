"""What is learnt of each source: its objective, and how many targets of each of its units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from growlm.data.dataset import Sequences, TokenDataset
from growlm.data.packing import Packing
from growlm.errors import RecipeError
from growlm.recipe.keys import did_you_mean
from growlm.recipe.objectives import OBJECTIVES, USUAL, Objective, ObjectivesTable


@dataclass(frozen=True)
class Learnt:
    """One source in units of `unit` tokens."""

    objective: Objective
    weight: float
    unit: int
    units: int
    packing: Packing | None
    """Of examples; None of running text."""
    marked: bool
    """Only marked targets are learnt, not all that are no padding."""

    @property
    def plain(self) -> bool:
        """Whether every token is learnt."""
        return self.packing is None

    def counts(self, units: np.ndarray) -> np.ndarray:
        """How many targets of each of these units are learnt."""
        if self.packing is None:
            return np.full(units.shape, self.unit)
        return self.packing.learnt[units] if self.marked else self.packing.tokens[units] - 1

    def place(self, unit: int) -> tuple[int, int]:
        """First token and number of tokens of a unit of examples."""
        assert self.packing is not None
        return int(self.packing.start[unit]), int(self.packing.tokens[unit])

    def learnt(self, sequences: Sequences) -> np.ndarray:
        """Which targets of some sequences of the source are learnt, (N, T) bool."""
        return sequences.marked if self.marked else sequences.real


EXAMPLES_SHARE = 0.1


def usual_mixture(dataset: TokenDataset, known: Mapping[str, float]) -> dict[str, float]:
    """Weights to start from: those that are known of all running text, or else the same for each; examples
    have a tenth of the whole together, each source by its tokens."""
    text = [name for name in dataset.sources if dataset.kind(name) == "text"]
    tokens = {name: dataset.tokens(name, "train") for name in dataset.sources if name not in text}
    weights = {name: known[name] if all(n in known for n in text) else 1.0 for name in text}
    share = sum(weights.values()) * EXAMPLES_SHARE / (1 - EXAMPLES_SHARE) if text else 1.0
    total = max(1, sum(tokens.values()))
    return weights | {name: float(f"{share * count / total:.3g}") for name, count in tokens.items()}


def learnt_of(
    dataset: TokenDataset, sources: Iterable[str], unit: int, objectives: ObjectivesTable
) -> dict[str, Learnt]:
    """What is learnt of some sources. Raises RecipeError: an objective that does not fit its source, or one
    that is not there."""
    for name in objectives.sources:
        if name not in dataset.sources:
            guess = did_you_mean(name, dataset.sources)
            raise RecipeError(
                f"The data has no source {name!r}",
                where=f"objectives.sources.{name}",
                why=f"it has {', '.join(dataset.sources)}",
                fix=f"did you mean {guess!r}?" if guess else "remove it",
            )
    return {name: _learnt(dataset, name, unit, objectives) for name in sources}


def objective_of(dataset: TokenDataset, source: str, objectives: ObjectivesTable) -> Objective:
    """What a source is learnt by. Raises RecipeError if it has nothing that this objective could learn."""
    kind = dataset.kind(source)
    objective = objectives.sources.get(source, USUAL[kind])
    if objective != "language" and USUAL[kind] != objective:
        known = ", ".join(o for o in OBJECTIVES if o in ("language", USUAL[kind]))
        raise RecipeError(
            f"{source!r} cannot be learnt by the objective {objective!r}",
            where=f"objectives.sources.{source}",
            why=f"it was prepared as {kind}",
            fix=f"write one of: {known}; or prepare it as what it is",
        )
    return objective


def _learnt(dataset: TokenDataset, source: str, unit: int, objectives: ObjectivesTable) -> Learnt:
    objective = objective_of(dataset, source, objectives)
    marked = objective == "teacher" or (
        objective == "instruction" and objectives.instruction_loss == "answers"
    )
    weight = objectives.weight(objective)
    if dataset.kind(source) == "text":
        units = (dataset.tokens(source, "train") - 1) // unit
        return Learnt(objective, weight, unit, units, None, marked=False)
    packing = dataset.packing(source, "train", unit)
    return Learnt(objective, weight, unit, len(packing.start), packing, marked)
