"""The data model of every view, computed once from the record and the recipe of a run. No torch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from growlm.data.card import read_card
from growlm.errors import RecipeError
from growlm.recipe.schema import Recipe
from growlm.report.history import events_of
from growlm.report.objectives import by_source, objectives_of, tasks_of
from growlm.report.outlook import outlook
from growlm.report.series import (
    Record,
    applied_loss,
    axes_of,
    column,
    losses_of,
    numbers_of,
    or_none,
    smooth,
    thin,
)
from growlm.report.stages import growths_of, planned_of, seconds_to_go, stages_of
from growlm.train.record import RECORD_NAME, RecordReader
from growlm.train.stored import DATA_CARD

SAMPLES_SHOWN = 6
TEXT_SHOWN = 800


def summary(run: Path) -> dict[str, Any]:
    """All that a view of the run folder `run` shows, as JSON values; `growlm report --json` prints it.

    Curves are (steps, values) with at most `POINTS` points; `axes` turns steps into tokens, model FLOPs,
    seconds of training and money. Losses are nats per token. Raises `RecipeError` for no such run.
    """
    return Summarizer(run).summary()


class Summarizer:
    """`summary` of one run, again and again: only what was appended since is read."""

    def __init__(self, run: Path) -> None:
        self.run = Path(run)
        if not self.run.is_dir():
            raise RecipeError(
                "There is no such run.", where=str(run), fix="name a run folder, e.g. runs/demo"
            )
        self._reader = RecordReader(self.run / RECORD_NAME)

    def summary(self) -> dict[str, Any]:
        """The data of the page now (see the function of the same name)."""
        records = self._reader.read()
        start = _last(records, "start")
        if start is None:
            raise RecipeError(
                "This run has not recorded a start.",
                where=str(self._reader.path),
                fix="start it with `growlm train`",
            )
        by_kind: dict[str, list[Record]] = {}
        for r in records:
            by_kind.setdefault(r["kind"], []).append(r)
        steps = by_kind.get("step", [])
        stages = stages_of(by_kind.get("stage", []), steps, by_kind.get("valid", []))
        recipe = _recipe(self.run)
        now = time.time()
        return {
            "name": str(start.get("name") or self.run.resolve().name),
            "now": now,
            "state": _state(records, now),
            "currency": str(start.get("currency") or ""),
            "price_per_hour": or_none(start.get("price_per_hour")),
            "max_cost": recipe.budget.max_cost if recipe else None,
            "machine": _machine(start),
            "totals": _totals(by_kind, start, seconds_to_go(recipe, start, stages, steps)),
            "stages": stages,
            "planned": planned_of(recipe, len(stages)),
            "growths": growths_of(by_kind.get("growth", [])),
            "forecast": outlook(by_kind.get("forecast", []), steps),
            "axes": axes_of(steps),
            "series": _series(steps),
            "valid": by_source(by_kind.get("valid", []), "losses"),
            "objectives": objectives_of(steps),
            "accuracy": by_source(by_kind.get("valid", []), "accuracy"),
            "tasks": tasks_of(by_kind.get("tasks", [])),
            "epochs": numbers_of(_last(records, "valid") or {}, "epochs"),
            "data": read_card(self.run / DATA_CARD),
            "samples": _samples(by_kind.get("sample", [])),
            "resumes": [r["step"] for r in by_kind.get("resume", [])],
            "skipped": [r["step"] for r in steps if r.get("applied") is False],
            "events": events_of(records),
        }


def _recipe(run: Path) -> Recipe | None:
    """The recipe of the run; None where there is none or another version of GrowLM wrote it."""
    path = run / "recipe.json"
    try:
        return Recipe.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValidationError):
        return None
    except ValueError as error:
        raise RecipeError(
            "The recipe of this run cannot be read.", where=str(path), why=str(error)
        ) from error


def _state(records: list[Record], now: float) -> dict[str, Any]:
    """`kind` is done, preempted or failed if the newest start ended so, else running or silent."""
    last = records[-1]
    age = max(0.0, now - (or_none(last.get("time")) or 0.0))
    end = _last(records, "end")
    if end is not None and end["incarnation"] == max(r["incarnation"] for r in records):
        return {"kind": str(end.get("status")), "age": age}
    step = _last(records, "step")
    patience = max(60.0, 20 * (or_none(step.get("step_seconds")) or 0.0) if step else 0.0)
    return {"kind": "running" if age <= patience else "silent", "age": age}


def _machine(start: Record) -> dict[str, Any]:
    text = {key: str(start[key]) for key in ("version", "torch", "device", "precision") if key in start}
    argv = start.get("argv")
    command = " ".join(map(str, argv)) if isinstance(argv, list) else ""
    numbers = {key: or_none(start.get(key)) for key in ("threads", "peak_tflops")}
    return {**text, **numbers, "command": command}


def _totals(by_kind: dict[str, list[Record]], start: Record, to_go: float | None) -> dict[str, Any]:
    steps, saves = by_kind.get("step", []), by_kind.get("save", [])
    last = steps[-1] if steps else {}
    loss = smooth(applied_loss(steps))
    price = or_none(start.get("price_per_hour"))
    seconds = or_none(last.get("train_seconds")) or 0.0
    measured = max((or_none(r.get("train_seconds")) or 0.0 for r in by_kind.get("tasks", [])), default=0.0)
    extra = max(0.0, measured - seconds)  # of tasks behind the last step
    cost = or_none(last.get("cost"))
    verified = by_kind.get("verified", [])
    return {
        "step": last.get("step", 0),
        "total_steps": or_none(start.get("total_steps")),
        "tokens": or_none(last.get("tokens")) or 0.0,
        "total_tokens": or_none(start.get("total_tokens")),
        "seconds": seconds + extra,
        "flops": or_none(last.get("flops")) or 0.0,
        "cost": None if cost is None else cost + extra / 3600 * (price or 0.0),
        "seconds_to_go": to_go,
        "cost_to_go": to_go / 3600 * price if to_go is not None and price is not None else None,
        "loss": or_none(float(loss[-1])) if len(loss) else None,
        "valid": losses_of(by_kind["valid"][-1]) if "valid" in by_kind else {},
        "tokens_per_second": or_none(last.get("tokens_per_second")),
        "mfu": or_none(last.get("mfu")),
        "memory_bytes": or_none(last.get("memory_bytes")),
        "saves": len(saves),
        "last_save": {k: or_none(saves[-1].get(k)) for k in ("time", "step", "seconds", "bytes")}
        if saves
        else None,
        "starts": len(by_kind.get("start", [])),
        "resumes": len(by_kind.get("resume", [])),
        "verified": sum(r.get("identical") is True for r in verified),
        "differing": sum(r.get("identical") is not True for r in verified),
        "skipped": sum(r.get("applied") is False for r in steps),
    }


def _series(steps: list[Record]) -> dict[str, dict[str, Any]]:
    """Per quantity the raw curve and its moving average; skipped steps count in no average."""
    at = column(steps, "step")
    found = {}
    for key in ("loss", "lr", "grad_norm", "tokens_per_second", "mfu"):
        values = column(steps, key)
        average = smooth(applied_loss(steps)) if key == "loss" else smooth(values)
        found[key] = {"raw": thin(at, values), "smooth": thin(at, values if key == "lr" else average)}
    return found


def _samples(samples: list[Record]) -> list[dict[str, Any]]:
    """Per prompt the first, the last and evenly spaced samples in between, oldest first."""
    by_prompt: dict[str, dict[int, Record]] = {}
    for r in samples:
        by_prompt.setdefault(str(r.get("prompt")), {})[r["step"]] = r
    found = []
    for prompt, by_step in by_prompt.items():
        every = [by_step[step] for step in sorted(by_step)]
        chosen = np.unique(np.linspace(0, len(every) - 1, min(SAMPLES_SHOWN, len(every))).astype(int))
        texts = [{"step": every[i]["step"], "text": str(every[i].get("text"))[:TEXT_SHOWN]} for i in chosen]
        found.append({"prompt": prompt[:TEXT_SHOWN], "texts": texts})
    return found


def _last(records: list[Record], kind: str) -> Record | None:
    return next((r for r in reversed(records) if r["kind"] == kind), None)
