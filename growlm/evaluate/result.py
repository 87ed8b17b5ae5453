"""What an evaluation found: scores with their intervals, in one JSON file that every table reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from growlm.checkpoint.disk import disk_errors, make_dirs, write_atomic
from growlm.errors import DataError

RESULTS = "results.json"
Kind = Literal["iq", "knowledge", "context"]


@dataclass(frozen=True)
class Score:
    """One metric of one task. Values are shares of 1."""

    task: str
    metric: str
    value: float
    low: float
    high: float
    """The 95 % interval."""
    items: int
    group: str
    """The table it stands in: `iq/rules`, `open-llm`, ..."""
    shots: int = 0
    chance: float | None = None
    """What guessing scores; None where guesses are hopeless or meaningless."""
    cut: int = 0
    """Items whose prompt did not fit the context and lost its beginning."""
    failed: int = 0
    """Items that an endpoint did not answer; they count as wrong."""
    published: dict[str, float] = field(default_factory=dict)
    """The same task's value for models in the literature."""
    notes: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    """Of the notes those on another choice of items or examples than the published one."""
    benchmark: str = ""
    """Of knowledge: the set, which may have several scores."""


@dataclass(frozen=True)
class Evaluated:
    """The model that was evaluated."""

    name: str
    source: str
    identity: str
    parameters: int | None = None
    tokens: int | None = None
    """That it was trained on, all stages together."""
    zettaflops: float | None = None
    """Of its training, 1e21 floating-point operations, without recomputation."""
    stage: str | None = None


@dataclass(frozen=True)
class Result:
    """One model's scores."""

    kind: Kind
    model: Evaluated
    scores: list[Score]
    settings: dict[str, Any]
    """What the items and prompts depend on: seed, dials, shots, limit, ..."""
    growlm: str
    when: str
    """UTC, ISO 8601."""


def save_result(folder: Path, result: Result) -> Path:
    """Write `results.json` into a folder, whole or not at all. Raises DiskError."""
    with disk_errors(folder):
        make_dirs(folder)
    path = folder / RESULTS
    write_atomic(path, json.dumps(asdict(result), ensure_ascii=False, indent=1).encode())
    return path


def load_result(path: Path) -> Result:
    """Read a `results.json`. Raises DataError: no such file, or not of this form."""
    try:
        told = json.loads(path.read_text("utf-8"))
        scores = [Score(**score) for score in told.pop("scores")]
        told["settings"] = {"tasks": {}, **told["settings"]}
        return Result(model=Evaluated(**told.pop("model")), scores=scores, **told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "This is no result of an evaluation",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            fix="delete it, and run the evaluation again: the answers beside it are kept",
        ) from error
