"""The models that a command line names: `MODEL`, `NAME=MODEL`, a run's stages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from growlm.errors import CheckpointError, RecipeError
from growlm.inference.facts import facts, is_endpoint, is_run, stages_of


def models_of(named: Sequence[str], *, every_stage: bool = False) -> list[dict[str, Any]]:
    """The facts of each model (`inference.facts`), `source` and a `name` of its own among them.

    Args:
        named: `MODEL` or `NAME=MODEL`; what there is a file or folder of is a MODEL.
        every_stage: of each run the checkpoints at the end of its stages, named RUN/STAGE; what is no run
            is asked as it is.

    Raises RecipeError: no model, two of a name, or a name that is no folder's. CheckpointError: there is no
    such model, or it is no run.
    """
    if not named:
        raise RecipeError(
            "No model is named", where="MODEL", fix="name a run, a model's folder, or http://..."
        )
    found: list[dict[str, Any]] = []
    for text in named:
        match = None if Path(text).exists() else re.fullmatch(r"([^/=]+)=(.+)", text)
        name, source = (match[1], match[2]) if match else (None, text)
        if not is_endpoint(source) and not Path(source).exists():
            raise CheckpointError(
                "There is no such file or folder",
                where=source,
                fix="name a run, a checkpoint, a Hugging Face folder, or http://HOST:PORT/v1",
            )
        stages = stages_of(Path(source)) if every_stage and is_run(source) else []
        for path in stages or [source]:
            told = facts(path)
            if name:
                told["name"] = f"{name}/{told['stage']}" if stages else name
            found.append(told)
    names = [told["name"] for told in found]
    for told in found:
        _refuse_outside(told)
        if names.count(told["name"]) > 1:
            raise RecipeError(
                f"Two models have the name {told['name']!r}",
                where=str(told["source"]),
                fix=f"name them: NAME={told['source']}",
            )
    return found


def _refuse_outside(told: dict[str, Any]) -> None:
    """A model's results lie in a folder of its name, below that of all results."""
    name = PurePosixPath(told["name"])
    if not name.parts or name.is_absolute() or ".." in name.parts or not told["name"].isprintable():
        raise RecipeError(
            f"{told['name']!r} is no name for a folder of results",
            where=str(told["source"]),
            fix="name the model: NAME=MODEL, with a NAME without .. and /",
        )
