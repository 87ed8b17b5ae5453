"""The recipe that a run folder remembers, for going on with it and for everything that looks at it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from growlm.errors import CheckpointError
from growlm.recipe.schema import Recipe

RECIPE_NAME = "recipe.json"


def stored_recipe(folder: Path) -> Recipe | None:
    """The recipe that a run folder remembers; None if it is no run folder. Raises CheckpointError."""
    path = folder / RECIPE_NAME
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "the recipe that a run was started with cannot be read",
            where=str(path),
            why=error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error),
            fix="bring it back, or remove it to go on with the recipe that is given, unchecked",
        ) from error
