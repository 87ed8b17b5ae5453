"""Folders of results as evaluations write them, without evaluating anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from growlm.evaluate.published import published
from growlm.evaluate.result import Evaluated, Kind, Result, Score, save_result

KNOWLEDGE = {
    "open_llm": ("acc", None),
    "arc_challenge": ("acc_norm", 0.25),
    "hellaswag": ("acc_norm", 0.25),
    "mmlu": ("acc", 0.25),
    "truthfulqa_mc2": ("mc2", None),
}
RULES = {"counting": 148, "replace_lowercase": 300, "replace_word": 300}


def score(task: str, value: float, items: int, group: str, **more: Any) -> Score:
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.002) / items)
    fixed = {"low": max(0.0, value - half), "high": min(1.0, value + half), "items": items, "group": group}
    told = {"metric": "exact_match", "published": published(task)}
    return Score(task=task, value=value, **{**fixed, **told, **more})


def write_result(out: Path, kind: Kind, model: Evaluated, scores: list[Score], **settings: Any) -> Path:
    folder = out / model.name / kind
    folder.mkdir(parents=True)
    return save_result(folder, Result(kind, model, scores, settings, "0.6.0", "2026-11-22T18:00:00+00:00"))


def model(name: str, *, stage: str | None = None, cost: float | None = 2e-6, **more: Any) -> Evaluated:
    facts = {"source": f"runs/{name}", "identity": "0" * 32, "parameters": 1_060_000, "tokens": 4_000_000}
    return Evaluated(name, zettaflops=cost, stage=stage, **{**facts, **more})


def knowledge(level: float, **more: Any) -> list[Score]:
    found = []
    for i, (task, (metric, chance)) in enumerate(KNOWLEDGE.items()):
        told = {"metric": metric, "chance": chance, "shots": 5 * i, **more}
        found.append(score(task, min(0.99, level * (1 + 0.1 * i)), 1000 + 17 * i, "open-llm", **told))
    return found


def rules(level: float, **more: Any) -> list[Score]:
    found = []
    for i, (task, items) in enumerate(RULES.items()):
        told = {"chance": 0.0, "shots": 4 * (i > 0), **more}
        found.append(score(task, level * (1 + 0.2 * i), items, "iq/rules", **told))
    return found


def context(trained: int, slope: float) -> list[Score]:
    """Losses in nats that rise past the trained length as `slope` says."""
    found = []
    for end in range(trained // 8, 4 * trained + 1, trained // 8):
        loss = 4 - 0.2 * math.log(1 + end / trained) + slope * max(0, end / trained - 1)
        found.append(Score(str(end), "nats", loss, loss - 0.03, loss + 0.03, 64, "context/position"))
    for share in (0.25, 0.5, 1, 2, 4):
        found.append(Score(str(int(share * trained)), "nats", 3.9, 3.85, 3.95, 64, "context/length"))
    return found
