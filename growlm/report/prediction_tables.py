"""Predictions as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from growlm.scaling.curve_predict import CurvePrediction
from growlm.scaling.predict import Prediction
from growlm.train.console import count


def print_predictions(predictions: Sequence[tuple[Prediction | CurvePrediction, float | None]]) -> None:
    """Print what `growlm.report.predict.predictions` found."""
    console = Console()
    for p, actual in predictions:
        console.print(_points(p) if isinstance(p, Prediction) else _curves(p))
        console.print(f"Predicted loss [bold]{p.loss:.4f}[/bold], 90 % interval {p.low:.4f} to {p.high:.4f}.")
        if actual is not None:
            where = "inside" if p.low <= actual <= p.high else "outside"
            error = 100 * (p.loss / actual - 1)
            console.print(
                f"Measured {actual:.4f}: the prediction is {error:+.2f} % off, {where} its interval."
            )
        if isinstance(p, Prediction) and p.extrapolation:
            ratios = ", ".join(f"{v:.3g} x in {k}" for k, v in p.extrapolation.items())
            console.print(f"Target over the largest run: {ratios}.")
        for warning in p.warnings:
            console.print(f"[yellow]Warning:[/yellow] {escape(warning)}.")


def _points(p: Prediction) -> Table:
    given = {k: v for k, v in asdict(p.target).items() if v is not None}
    title = ", ".join(f"{k} {v:.4g}" if k == "c" else f"{k} {count(v)}" for k, v in given.items())
    table = Table("law", "loss", "weight", "points", "held out", "largest", title=title)
    table.caption = "\n".join(f"{law.name}: {law.formula}" for law in p.laws)
    for law in p.laws:
        test = law.back_test
        rms = f"{100 * test.rms:.2f} %" if test.rms is not None else "–"
        largest = f"{100 * test.largest:+.2f} %" if test.largest is not None else "–"
        table.add_row(law.name, f"{law.loss:.4f}", f"{law.weight:.2f}", str(law.points), rms, largest)
    return table


def _curves(p: CurvePrediction) -> Table:
    table = Table("law", "last loss", "weight", "held out", title=f"schedule {escape(p.name)}")
    for law in p.laws:
        table.add_row(law.name, f"{law.loss:.4f}", f"{law.weight:.2f}", f"{100 * law.error:.2f} %")
    held = ", ".join(f"{escape(name)} {100 * error:+.2f} %" for name, error in p.back_test.items())
    table.caption = f"last loss of curves that were held out: {held}"
    return table
