"""What the search of a recipe's hyper-parameters took, as `growlm search` left it. No torch."""

from __future__ import annotations

import json
from pathlib import Path

from growlm.errors import RecipeError


def searched_flops(folder: Path) -> float:
    """FLOPs of all trials of a search, by its result.json. Raises RecipeError if there is none."""
    path = folder / "result.json"
    try:
        flops = float(json.loads(path.read_text(encoding="utf-8"))["cost"]["flops"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            "this is not the folder of a finished search",
            where=str(path),
            why=str(error),
            fix="growlm search",
        ) from error
    return flops
