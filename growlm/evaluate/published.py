"""Scores and costs that a paper prints, to stand beside ours. No torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Cost:
    """What a model's training took, in zettaFLOPs (1e21), by the convention of published.toml."""

    zettaflops: float
    half_width: float = 0.0
    """Half of the printed range: with or without recomputation."""
    derived: bool = False
    """Not printed: calculated from what is."""


@dataclass(frozen=True)
class Row:
    """A model in a table: shares of 1 by task."""

    model: str
    values: dict[str, float]
    cost: Cost | None


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper, or the part of it that covers the same tasks."""

    number: int
    group: str
    title: str
    language: str
    note: str
    tasks: tuple[str, ...]
    """The first is the average, where there are several."""
    rows: tuple[Row, ...]


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Tables 4 to 11 of arXiv:2309.03852."""
    costs = _told()["cost"]
    return tuple(_table(table, costs) for table in _told()["tables"])


def published(task: str) -> dict[str, float]:
    """The value of each model that has been published for a task, shares of 1; empty for an unknown task."""
    return {
        row.model: row.values[task]
        for table in published_tables()
        for row in table.rows
        if task in row.values
    }


def published_cost(model: str, task: str) -> Cost | None:
    """What the training of a published model took, in the language of the task; None if that is not known."""
    rows = (row for table in published_tables() if task in table.tasks for row in table.rows)
    return next((row.cost for row in rows if row.model == model), None)


def _table(told: dict[str, Any], costs: dict[str, Any]) -> PublishedTable:
    tasks, language = tuple(told["tasks"]), told["language"]
    rows = tuple(
        Row(model, _shares(tasks, values), _cost(costs.get(model, {}), language))
        for model, values in told["rows"].items()
    )
    kept = {key: told[key] for key in ("number", "group", "title", "note")}
    return PublishedTable(**kept, language=language, tasks=tasks, rows=rows)


def _shares(tasks: tuple[str, ...], values: list[float]) -> dict[str, float]:
    return {task: round(value / 100, 6) for task, value in zip(tasks, values, strict=True)}


def _cost(told: dict[str, Any], language: str) -> Cost | None:
    if language not in told:
        return None
    return Cost(told[language], told.get("half_width", 0.0), told.get("derived", False))


@cache
def _told() -> dict[str, Any]:
    return tomllib.loads((files("growlm.evaluate") / "published.toml").read_text("utf-8"))
