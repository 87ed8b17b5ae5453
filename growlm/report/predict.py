"""`growlm predict` without its printing: from files, run folders and targets to predictions. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from growlm.errors import RecipeError
from growlm.scaling.candidates import Target
from growlm.scaling.columns import number
from growlm.scaling.predict import Prediction, predict
from growlm.scaling.table import join, read_table


def predictions(
    sources: Sequence[Path], targets: Sequence[str], columns: str = "", law: str | None = None
) -> list[Prediction]:
    """One prediction per target. Raises DataError for a bad table, RecipeError for a bad target."""
    given = _pairs(columns, "--columns")
    table = join([read_table(path, given) for path in sources])
    return [predict(table, parse_target(text), law) for text in targets]


def parse_target(text: str) -> Target:
    """`n=1e9,d=20B`, `c=1e21` or `width=2048`; a number alone is n. Raises RecipeError."""
    pairs = _pairs(text if "=" in text else f"n={text}", "--target")
    try:
        values = {key: number(value) for key, value in pairs.items()}
        if any(not 0 < value < float("inf") for value in values.values()):
            raise ValueError("a target is positive")
        return Target(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"{text!r} is no target", where="--target", why=str(error), fix="--target n=1e9,d=2e10"
        ) from error


def _pairs(text: str, option: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not sign for _, sign, _ in pairs):
        raise RecipeError(f"{text!r} cannot be read", where=option, fix="write name=value,name=value")
    return {key.strip(): value.strip() for key, _, value in pairs}
