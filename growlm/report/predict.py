"""`growlm predict` without its printing: from files, run folders and targets to predictions. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from growlm.errors import RecipeError
from growlm.recipe.load import load_recipe
from growlm.report.outcomes import curve_of, outcome, schedule_of, target_of
from growlm.report.prediction_picture import curves_picture, points_picture
from growlm.scaling.candidates import Target
from growlm.scaling.columns import number
from growlm.scaling.curve_laws import FITS
from growlm.scaling.curve_predict import CurvePrediction, FittedCurves, fit_curves
from growlm.scaling.curves import Curve
from growlm.scaling.predict import Prediction, predict
from growlm.scaling.table import Table, join, read_table

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_LEAST_STEPS = 8


@dataclass(frozen=True)
class Predictions:
    """What was predicted from what. found: one prediction per target, with the measured loss where the
    target's file has one. Either `table` or `curves` is what the laws were fitted to."""

    found: list[tuple[Prediction | CurvePrediction, float | None]]
    table: Table | None = None
    curves: tuple[Curve, ...] = ()

    def as_json(self) -> list[dict[str, Any]]:
        """Plain JSON values."""
        return [{**asdict(p), "measured": measured} for p, measured in self.found]

    def picture(self) -> str:
        """An SVG of the measured and the predicted losses."""
        points = [p for p, _ in self.found if isinstance(p, Prediction)]
        curves = [p for p, _ in self.found if isinstance(p, CurvePrediction)]
        return points_picture(self.table, points) if self.table else curves_picture(self.curves, curves)


def predictions(
    sources: Sequence[Path], targets: Sequence[str], columns: str = "", law: str | None = None
) -> Predictions:
    """Predict every target from tables or finished runs.

    Tables of steps, learning rates and losses of one model are curves, which predict other schedules; all
    others are points, which predict other sizes and lengths. Raises DataError for a bad table or run,
    RecipeError for a bad target.
    """
    given = _pairs(columns, "--columns")
    _check(sources, targets)
    tables = [outcome(path) if path.is_dir() else read_table(path, given) for path in sources]
    if law in FITS or (law is None and all(is_curve(t) for t in tables)):
        curves = [
            c
            for path, t in zip(sources, tables, strict=True)
            for c in ([curve_of(path)] if path.is_dir() else curves_of(t, path))
        ]
        fitted = fit_curves(curves, law)
        found = [pair for text in targets for pair in _predict_curves(fitted, text, given)]
        return Predictions(list(found), curves=fitted.curves)
    table = join(tables)
    wanted = [pair for text in targets for pair in parse_targets(text, given)]
    return Predictions([(predict(table, target, law), measured) for target, measured in wanted], table)


def _check(sources: Sequence[Path], targets: Sequence[str]) -> None:
    """Refuse recipes among the sources, and runs that are to be predicted."""
    for path in sources:
        if path.suffix.lower() == ".toml":
            raise RecipeError("a recipe has no losses", where=str(path), fix=f"name it as --target {path}")
    asked = {Path(text).resolve() for text in targets if Path(text).is_dir()}
    for path in sources:
        if path.resolve() in asked:
            raise RecipeError(
                "a run cannot predict itself",
                where=str(path),
                why="it is a source and a target",
                fix="leave it out of the sources",
            )


def is_curve(table: Table) -> bool:
    """Whether a table is steps and learning rates of one model."""
    if "step" not in table or "lr" not in table or len(np.unique(table["step"])) < _LEAST_STEPS:
        return False
    return "n" not in table or len(np.unique(table["n"])) == 1


def curves_of(table: Table, path: Path) -> list[Curve]:
    """The curves of a table, one per run that it names. Raises RecipeError without steps or rates."""
    if "step" not in table or "lr" not in table:
        raise RecipeError(
            "a law of curves needs columns of steps and learning rates",
            where=str(path),
            fix="name them: --columns step=HEADER,lr=HEADER",
        )
    runs = dict.fromkeys(table.runs)
    parts = [(str(run), table.where(table.runs == run)) for run in runs]
    return [Curve(name, t["step"], t["lr"], t["step"], t.columns.get("loss", t["lr"])) for name, t in parts]


def parse_targets(text: str, given: dict[str, str]) -> list[tuple[Target, float | None]]:
    """`n=1e9,d=20B`, `c=1e21`, `width=2048`, a number alone (n), a recipe, a finished run, or a table with a
    target per row; with the losses that run or table have. Raises RecipeError, DataError."""
    path = Path(text)
    if path.is_dir() or path.suffix.lower() in _TABLES:
        table = outcome(path) if path.is_dir() else read_table(path, given, measured=False)
        keys = [k for k in ("n", "d", "c", "width") if k in table]
        losses = table.columns.get("loss", [None] * len(table))
        rows = [{k: float(table[k][i]) for k in keys} for i in range(len(table))]
        return [(Target(**row), _or_none(loss)) for row, loss in zip(rows, losses, strict=True)]
    if path.suffix == ".toml":
        return [(target_of(load_recipe(path)), None)]
    return [(parse_target(text), None)]


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
            f"{text!r} is no target",
            where="--target",
            why=f"{error}",
            fix="--target n=1e9,d=2e10, a recipe (.toml), a run folder, or a table (.csv), a target per row",
        ) from error


def _predict_curves(
    fitted: FittedCurves, text: str, given: dict[str, str]
) -> list[tuple[CurvePrediction, float | None]]:
    """Predictions of the schedules of a table, a recipe or a finished run."""
    path = Path(text)
    if path.suffix == ".toml":
        return [(fitted.predict(schedule_of(load_recipe(path))), None)]
    if path.is_dir():
        curve = curve_of(path)
        return [(fitted.predict(curve), float(curve.loss[-1]))]
    if path.suffix.lower() not in _TABLES:
        raise RecipeError(
            f"{text!r} is no schedule",
            where="--target",
            why="the sources are curves of one model, which predict its loss under other learning rates",
            fix="name a table with columns step and lr, or a recipe; or use --law size for a law of points",
        )
    table = read_table(path, given, measured=False)
    losses = table.columns.get("loss")
    ends = {str(r): _or_none(losses[table.runs == r][-1]) if losses is not None else None for r in table.runs}
    return [(fitted.predict(curve), ends[curve.name]) for curve in curves_of(table, path)]


def _pairs(text: str, option: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not sign for _, sign, _ in pairs):
        raise RecipeError(f"{text!r} cannot be read", where=option, fix="write name=value,name=value")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _or_none(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
