"""Predictions as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from growlm.scaling.predict import Prediction


def print_predictions(predictions: Sequence[Prediction]) -> None:
    """Print what `growlm.report.predict.predictions` found."""
    console = Console()
    for p in predictions:
        given = ", ".join(f"{k} {v:.4g}" for k, v in asdict(p.target).items() if v is not None)
        laws = Table("law", "loss", "weight", "points", "back-test", "at the largest", "formula", title=given)
        for law in p.laws:
            test = law.back_test
            laws.add_row(
                law.name,
                f"{law.loss:.4f}",
                f"{law.weight:.2f}",
                str(law.points),
                f"{100 * test.rms:.2f} %" if test.cuts else "–",
                f"{100 * test.largest:+.2f} %" if test.largest is not None else "–",
                law.formula,
            )
        console.print(laws)
        console.print(f"predicted loss [bold]{p.loss:.4f}[/bold]  90 % interval {p.low:.4f} to {p.high:.4f}")
        for warning in p.warnings:
            console.print(f"Warning: {escape(warning)}")
