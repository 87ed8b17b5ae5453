"""A finished run as laws see it: one row of a table of losses, and its curve. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from growlm.errors import DataError
from growlm.model.parameters import n_parameters, parameter_table
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.report.series import Record, applied_loss, column, losses_of
from growlm.scaling.candidates import Target
from growlm.scaling.curves import Curve
from growlm.scaling.table import Table, table_of
from growlm.train.record import RECORD_NAME, read_record
from growlm.train.schedule import learning_rate
from growlm.train.stored import stored_recipe

_SCHEDULE_POINTS = 2000


def non_embedding(config: ModelConfig) -> int:
    """Parameters without the embedding and the output head: what laws of size are fitted in."""
    table = parameter_table(config).values()
    return sum(p.numel for p in table if p.role not in ("embedding", "unembedding"))


def outcome(run: Path) -> Table:
    """One row: sizes, tokens, steps, learning rates and the last validation loss of a finished run.

    The loss is the mean over sources, weighted as they were mixed; of a run that never validated, the mean
    training loss of its last twentieth. Raises DataError for a run that is not finished or that grew.
    """
    recipe, records = _finished(run)
    config, steps = recipe.model_config_of(0), _steps(records)
    valid = [losses_of(r) for r in records if r["kind"] == "valid" and r["step"] == steps[-1]["step"]]
    loss = _mixed(valid[-1], recipe.mixture_of(0)) if valid else None
    notes = (
        () if loss is not None else (f"{run.name} has no validation at its end: its training loss is used",)
    )
    tail = applied_loss(steps)[-max(1, len(steps) // 20) :]
    lr = column(steps, "lr")
    row = {
        "n": float(non_embedding(config)),
        "n_total": float(n_parameters(config)),
        "d": float(steps[-1]["tokens"]),
        "loss": loss if loss is not None else float(np.nanmean(tail)),
        "width": float(config.d_model),
        "depth": float(config.n_layers),
        "step": float(steps[-1]["step"]),
        "lr_end": float(lr[-1]),
        "lr_peak": float(np.nanmax(lr)),
    }
    columns = {key: np.array([value]) for key, value in row.items()}
    return table_of(columns, np.array([str(run.resolve())]), notes)


def curve_of(run: Path) -> Curve:
    """The training losses of a finished run and the learning rates of its steps. Raises DataError."""
    _, records = _finished(run)
    steps = _steps(records)
    at, lr, loss = column(steps, "step"), column(steps, "lr"), applied_loss(steps)
    keep = np.isfinite(loss)
    return Curve(run.name, at, lr, at[keep], loss[keep])


def target_of(recipe: Recipe) -> Target:
    """The last stage of a recipe as a target of laws of size and tokens."""
    last = len(recipe.stages) - 1
    config = recipe.model_config_of(last)
    tokens = sum(s.steps * s.tokens_per_step for s in recipe.stages)
    return Target(n=float(non_embedding(config)), d=float(tokens), width=float(config.d_model))


def schedule_of(recipe: Recipe) -> Curve:
    """The learning rates of the first stage of a recipe, as a target of laws of curves."""
    steps = recipe.stages[0].steps
    at = np.unique(np.linspace(0, steps - 1, min(steps, _SCHEDULE_POINTS)).astype(int))
    lr = np.array([learning_rate(recipe, 0, int(k)) for k in at])
    return Curve(recipe.name, at + 1.0, lr, at + 1.0, np.full(len(at), np.nan))


def _finished(run: Path) -> tuple[Recipe, list[Record]]:
    recipe = stored_recipe(run)
    if recipe is None or not (run / RECORD_NAME).is_file():
        raise DataError("this is no run", where=str(run), fix="name run folders, or tables of losses")
    if len(recipe.stages) > 1:
        raise DataError(
            "this run grew", where=str(run), why="laws of size are about models that had one size throughout"
        )
    records = read_record(run / RECORD_NAME)
    steps = _steps(records)
    if not steps or steps[-1]["tokens"] < recipe.stages[0].steps * recipe.stages[0].tokens_per_step:
        raise DataError("this run is not finished", where=str(run), fix="let it finish, or leave it out")
    return recipe, records


def _steps(records: list[Record]) -> list[Record]:
    return [r for r in records if r["kind"] == "step"]


def _mixed(losses: dict[str, Any], mixture: dict[str, float]) -> float | None:
    """Mean of the losses by the weights of the mixture; None when a source has none."""
    if not mixture.keys() <= losses.keys():
        return None
    return float(sum(w * losses[s] for s, w in mixture.items()) / sum(mixture.values()))
