"""The models that a command line names: `MODEL`, `NAME=MODEL`, a run's stages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growlm.errors import RecipeError
from growlm.inference.facts import facts, stages_of


def models_of(named: Sequence[str], *, every_stage: bool = False) -> list[dict[str, Any]]:
    """The facts of each model (`inference.facts`), `source` and a `name` of its own among them.

    Args:
        named: `MODEL` or `NAME=MODEL`.
        every_stage: of each run the checkpoints at the end of its stages, named RUN/STAGE.

    Raises RecipeError: no model, or two of a name. CheckpointError: there is no model, or no run.
    """
    if not named:
        raise RecipeError(
            "No model is named", where="MODEL", fix="name a run, a model's folder, or http://..."
        )
    found: list[dict[str, Any]] = []
    for text in named:
        match = re.fullmatch(r"([^/=]+)=(.+)", text)
        name, source = (match[1], match[2]) if match else (None, text)
        for path in stages_of(Path(source)) if every_stage else [source]:
            told = facts(path)
            if name:
                told["name"] = f"{name}/{told['stage']}" if every_stage else name
            found.append(told)
    names = [told["name"] for told in found]
    for told in found:
        if names.count(told["name"]) > 1:
            raise RecipeError(
                f"Two models have the name {told['name']!r}",
                where=str(told["source"]),
                fix=f"name them: NAME={told['source']}",
            )
    return found
