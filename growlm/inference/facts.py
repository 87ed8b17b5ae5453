"""What is known of a model beside its answers: its size, what it was trained on, and what that took."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import CheckpointStore
from growlm.convert.folder import FolderWeights, is_folder_of_weights
from growlm.errors import CheckpointError
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig
from growlm.train.restore import find_checkpoint
from growlm.train.state import config_of
from growlm.train.stored import stored_recipe


def is_endpoint(source: str | Path) -> bool:
    """Whether a source is an address."""
    return str(source).startswith(("http://", "https://"))


def is_run(source: str | Path) -> bool:
    """Whether a source is a run's folder."""
    return not is_endpoint(source) and stored_recipe(Path(source)) is not None


def facts(source: str | Path) -> dict[str, Any]:
    """The fields of `evaluate.result.Evaluated` but its identity; None for what nobody has written down.

    A run is named by its folder, a checkpoint by its run and stage, or its step inside a stage. Tokens and
    FLOPs (10^21 model FLOPs of all stages, plan/flops.py) are those of a run that began from nothing.
    Raises CheckpointError.
    """
    found: dict[str, Any] = {"name": str(source), "source": str(source)}
    found |= dict.fromkeys(("parameters", "tokens", "zettaflops", "stage"))
    path = Path(source)
    if is_endpoint(source):
        url, name = urldefrag(str(source))
        return found | {"name": name or url.partition("://")[2].partition("/")[0]}
    found["name"] = path.resolve().name
    if is_folder_of_weights(path):
        return found | {"parameters": _parameters_of_folder(path)}
    checkpoint = find_checkpoint(path)
    manifest, run = checkpoint.manifest, checkpoint.path.resolve().parent.parent
    recipe = stored_recipe(run)
    if recipe is not None and manifest.stage < len(recipe.stages):
        stage = recipe.stages[manifest.stage]
        found["stage"] = stage.name
        if checkpoint.path.resolve() == path.resolve():
            ended = manifest.stage_step == stage.steps
            found["name"] = f"{run.name}/{stage.name if ended else checkpoint.path.name}"
    found["parameters"] = _parameters(config_of(checkpoint))
    if manifest.init is None and manifest.tokens:
        found |= {"tokens": manifest.tokens, "zettaflops": manifest.flops / 1e21}
    return found


def stages_of(run: Path) -> list[Path]:
    """The checkpoint at the end of each stage of a run, and the newest of a stage that is under way.

    Raises CheckpointError: it is no run folder.
    """
    recipe = stored_recipe(run)
    if recipe is None:
        raise CheckpointError(
            "This is no run folder, so there are no stages",
            where=str(run),
            fix="name a run, or drop --every-stage",
        )
    newest: dict[int, tuple[int, Path]] = {}
    for entry in CheckpointStore(run / "checkpoints", keep=2).checkpoints():  # the newest first
        manifest = Manifest.load(entry.path / MANIFEST)
        if manifest.stage_step and not entry.replaced:
            newest.setdefault(manifest.stage, (manifest.stage_step, entry.path))
    last = max(newest, default=0)
    return [
        path
        for stage, (step, path) in sorted(newest.items())
        if stage == last or step == recipe.stages[stage].steps
    ]


def _parameters(config: ModelConfig) -> int:
    return sum(math.prod(parameter.shape) for parameter in parameter_table(config).values())


def _parameters_of_folder(path: Path) -> int | None:
    """Of a folder that GrowLM can read."""
    try:
        with FolderWeights(path) as weights:
            return _parameters(weights.config)
    except CheckpointError:
        return None
