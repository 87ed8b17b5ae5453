"""Every results.json under a folder as the data of one page: models, tables by group, context curves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from growlm.errors import RecipeError
from growlm.evaluate.published import published_cost, published_tables
from growlm.evaluate.result import RESULTS, Evaluated, Result, Score, load_result
from growlm.report.evaluation.context import contexts_of

_TITLES = {
    "open-llm": "Open LLM leaderboard",
    "superglue": "SuperGLUE",
    "clue": "CLUE",
    "cmmlu": "CMMLU",
    "ceval": "C-Eval",
    "truthfulqa": "TruthfulQA",
    "iq/superglue": "IQ: SuperGLUE-IQ, labels replaced by symbols",
    "iq/clue": "IQ: CLUE-IQ, labels replaced by symbols",
    "iq/rules": "IQ: rule understanding",
    "iq/patterns": "IQ: pattern mining",
    "iq/interference": "IQ: anti-interference",
    "iq/keys": "IQ: key retrieval by keys and filler",
    "mmlu/categories": "MMLU by category",
    "mmlu/subjects": "MMLU by subject",
    "cmmlu/subjects": "CMMLU by subject",
    "ceval/subjects": "C-Eval by subject",
}


def evaluation(folder: Path) -> dict[str, Any]:
    """All that the page of a folder of results shows, as JSON values. Values are shares of 1.

    Raises RecipeError for a folder without results, DataError for a file that is none.
    """
    paths = sorted(Path(folder).rglob(RESULTS))
    if not paths:
        raise RecipeError(
            "There are no results here",
            where=str(folder),
            fix=f"growlm eval iq MODEL --out {folder}, or growlm eval knowledge, or growlm eval context",
        )
    results = _told_apart([load_result(path) for path in paths])
    scored = [result for result in results if result.kind != "context"]
    return {
        "models": _models(results),
        "groups": [_group(name, scored) for name in _group_names(scored)],
        "contexts": contexts_of(results),
        "when": max(result.when for result in results),
    }


def _told_apart(results: list[Result]) -> list[Result]:
    """Results of a run that has trained on in between are of two models, and are named so. Precision and
    context, which an identity knows too, make no other model."""
    facts: dict[str, set[Any]] = {}
    for model in (result.model for result in results):
        facts.setdefault(model.name, set()).add((model.parameters, model.tokens))

    def named(model: Evaluated) -> Evaluated:
        if len(facts[model.name]) == 1:
            return model
        at = f" at {model.tokens or 0:,} tokens, {model.parameters or 0:,} parameters"
        stage = model.stage and model.stage + at  # it stays its run's
        return replace(model, name=model.name + at, stage=stage)

    return [replace(result, model=named(result.model)) for result in results]


def _models(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Each model once: a run's stages together, in the order of their training."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        mine = found.setdefault(result.model.name, {**_facts(result.model), "kinds": []})
        if result.kind not in mine["kinds"]:
            mine["kinds"].append(result.kind)
    return sorted(found.values(), key=_place)


def _facts(model: Evaluated) -> dict[str, Any]:
    stage = model.stage
    grown = stage is not None and model.name.endswith(f"/{stage}")
    return {
        "name": model.name,
        "run": model.name[: -len(stage) - 1] if grown and stage else None,
        "stage": stage if grown else None,
        "source": model.source,
        "parameters": model.parameters,
        "tokens": model.tokens,
        "zettaflops": model.zettaflops,
    }


def _place(model: dict[str, Any]) -> tuple[str, float, str]:
    return model["run"] or model["name"], model["tokens"] or 0, model["name"]


def _group_names(results: Iterable[Result]) -> list[str]:
    """Those known by a title first, in its order."""
    there = dict.fromkeys(score.group for result in results for score in result.scores)
    known = [g for title in _TITLES for g in (title, f"{title}/zh")]
    return [g for g in known if g in there] + [g for g in there if g not in known]


def _group(name: str, results: list[Result]) -> dict[str, Any]:
    """One table: columns are metrics of tasks; rows are our models, then what is published."""
    notes: list[str] = []
    cells: dict[str, dict[str, Any]] = {}
    columns: dict[str, dict[str, Any]] = {}
    scores: dict[str, list[Score]] = {}
    for result in results:
        for score in (s for s in result.scores if s.group == name):
            key = f"{score.task} {score.metric}"
            scores.setdefault(key, []).append(score)
            columns.setdefault(key, {"key": key, "task": score.task, "metric": score.metric})
            cells.setdefault(result.model.name, {})[key] = _cell(score, notes)
    averages = {table.tasks[0] for table in published_tables() if len(table.tasks) > 1}
    ordered = sorted(columns.values(), key=lambda column: _english(column["task"]) not in averages)
    for column in ordered:
        column.update(_common(scores[column["key"]]), average=_english(column["task"]) in averages)
    ours = [
        {**model, "ours": True, "cells": cells[model["name"]]}
        for model in _models(results)
        if model["name"] in cells
    ]
    return {
        "name": name,
        "title": _title(name),
        "columns": ordered,
        "rows": [*ours, *_published_rows(scores)],
        "notes": notes,
        "published": _published_notes(scores),
    }


def _english(task: str) -> str:
    return task.removesuffix("_zh")


def _title(group: str) -> str:
    title = _TITLES.get(group.removesuffix("/zh"), group)
    return f"{title}, in Chinese" if group.endswith("/zh") else title


def _cell(score: Score, notes: list[str]) -> dict[str, Any]:
    """A value with its interval, and the numbers (from 1) of the notes on it, which are added to `notes`."""
    mine = list(score.notes)
    if score.cut:
        mine.append(f"{score.cut} of {score.items} prompts did not fit the context and lost their beginning")
    if score.failed:
        mine.append(f"{score.failed} of {score.items} items were not answered; they count as wrong")
    notes += [note for note in dict.fromkeys(mine) if note not in notes]
    marks = sorted(notes.index(note) + 1 for note in set(mine))
    shown = {"value": score.value, "low": score.low, "high": score.high}
    return {**shown, "items": score.items, "shots": score.shots, "marks": marks}


def _common(scores: list[Score]) -> dict[str, Any]:
    """What all models' scores of a column share; None where they differ."""
    return {
        field: values.pop() if len(values := {getattr(score, field) for score in scores}) == 1 else None
        for field in ("items", "shots", "chance")
    }


def _published_notes(scores: dict[str, list[Score]]) -> list[str]:
    """What the tables that the published rows are from say of them."""
    tasks = {mine[0].task for mine in scores.values() if any(score.published for score in mine)}
    tables = (table for table in published_tables() if tasks & set(table.tasks))
    return [f"Table {table.number}: {table.note}" for table in tables if table.note]


def _published_rows(scores: dict[str, list[Score]]) -> list[dict[str, Any]]:
    """The rows of the literature for these columns, in the order of its tables."""
    rows: dict[str, dict[str, Any]] = {}
    for key, mine in scores.items():
        for model, value in (pair for score in mine for pair in score.published.items()):
            row = rows.setdefault(model, {"name": model, "ours": False, "cells": {}})
            row["cells"][key] = {"value": value}
            cost = published_cost(model, mine[0].task)
            row["zettaflops"] = cost and cost.zettaflops
            row["half_width"] = cost and cost.half_width
            row["derived"] = bool(cost and cost.derived)
    order = dict.fromkeys(row.model for table in published_tables() for row in table.rows)
    known = [rows.pop(model) for model in order if model in rows]
    return [*known, *rows.values()]
