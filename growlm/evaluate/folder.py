"""The folder that keeps what an evaluation found of one model: results.json and items.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from growlm import __version__
from growlm.checkpoint.disk import write_atomic
from growlm.evaluate.result import RESULTS, Evaluated, Kind, Result, Score, load_result, save_result

ITEMS = "items.jsonl"
Say = Callable[[str], None]


class ModelFolder:
    """What the folder holds of the same model, and under the same `fixed` settings, is kept; the rest goes
    with the first `save`.

    Raises DataError: its results.json is damaged.
    """

    def __init__(self, path: Path, kind: Kind, facts: Mapping[str, Any], identity: str, **fixed: Any) -> None:
        """`facts` of `inference.facts`: the fields of `Evaluated` but `identity`."""
        self.path, self._fixed = path, fixed
        self._kind: Kind = kind
        self._model = Evaluated(**facts, identity=identity)
        known = load_result(path / RESULTS) if (path / RESULTS).exists() else None
        self.result = known if known is not None and self._is_of_this(known) else None
        self._other = known is not None and self.result is None

    @property
    def scores(self) -> list[Score]:
        """All that are known."""
        return self.result.scores if self.result else []

    def replaced(self, settings: Mapping[str, Any]) -> str:
        """In words what is lost when tasks are saved that were asked with these settings, or ""."""
        if self._other:
            return f"the results of the model as it was before (weights, precision or context) in {self.path}"
        known = self.result.settings["tasks"] if self.result else {}
        other = [task for task, value in settings.items() if task in known and known[task] != value]
        return f"the results of {', '.join(other)} with other settings in {self.path}" if other else ""

    def save(
        self,
        scores: Sequence[Score],
        settings: Mapping[str, Any],
        asked: Collection[str],
        lines: Iterable[Mapping[str, Any]],
    ) -> Result:
        """Write both files.

        Args:
            scores: instead of all that are known.
            settings: by task, instead of those known of these tasks.
            asked: the values of `task` whose lines in items.jsonl are old.
            lines: the new ones.

        Raises DiskError.
        """
        known = self.result.settings["tasks"] if self.result else {}
        self._write_items(set(asked), lines)
        self.result = Result(
            kind=self._kind,
            model=self._model,
            scores=list(scores),
            settings={**self._fixed, "tasks": {**known, **settings}},
            growlm=__version__,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        save_result(self.path, self.result)
        self._other = False
        return self.result

    def _is_of_this(self, known: Result) -> bool:
        same = known.model.identity == self._model.identity and known.kind == self._kind
        return same and all(known.settings.get(name) == value for name, value in self._fixed.items())

    def _write_items(self, asked: set[str], new: Iterable[Mapping[str, Any]]) -> None:
        path = self.path / ITEMS
        held = path.read_text("utf-8").split("\n") if self.result and path.exists() else []
        kept = [line for line in held if _task_of(line) not in {None, *asked}]
        lines = [*kept, *(json.dumps(line, ensure_ascii=False) for line in new)]
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def _task_of(line: str) -> str | None:
    """Of an item; None for a line that is none."""
    try:
        return str(json.loads(line)["task"])
    except (ValueError, KeyError, TypeError):
        return None
