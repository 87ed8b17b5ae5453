"""`growlm data signals`: labelled files in, one JSONL file of propositions out, whole or not at all."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from growlm.data.reading.bad_rows import BadRows
from growlm.data.reading.files import expand
from growlm.data.signals.alone import accuracy_alone
from growlm.data.signals.items import Item, read_items
from growlm.data.signals.leaks import check_fields
from growlm.data.signals.pairs import Proposition, propositions
from growlm.data.signals.sift import Contradiction, sift
from growlm.data.signals.templates import Library, Template
from growlm.errors import DataError, DiskError


class _Task:
    """The items of a task, as read."""

    def __init__(self, template: Template, paths: Sequence[str | Path], license: str, bad: BadRows) -> None:
        self.template = template if not license else replace(template, license=license)
        self.files = expand(paths)
        self.dropped = 0
        self.items: list[Item] = list(read_items(self.template, self.files, bad.add, self._drop))
        if not self.items:
            raise DataError(
                f"The task {template.name!r} has no items",
                where=", ".join(map(str, self.files[:3])),
                why=f"{self.dropped} rows have a label that is left out, {len(bad.rows)} rows are malformed",
                fix="check the path, or leave the task out",
            )

    def _drop(self) -> None:
        self.dropped += 1


@dataclass(frozen=True)
class TaskSummary:
    """What became of a task's items."""

    task: str
    language: str
    items: int
    """In the files, without malformed rows."""
    true: int
    false: int
    dropped: Mapping[str, int]
    """Items that gave no proposition, by reason."""
    alone: float
    """See `growlm.data.signals.alone`."""

    @property
    def propositions(self) -> int:
        """True and false ones."""
        return self.true + self.false


@dataclass(frozen=True)
class Summary:
    """What `make_signals` did."""

    tasks: list[TaskSummary]
    contradictions: list[Contradiction]
    bad_rows: int


def make_signals(
    out: Path,
    tasks: Mapping[str, Sequence[str | Path]],
    *,
    task_files: Sequence[Path] = (),
    language: str = "en",
    licenses: Mapping[str, str] | None = None,
    pairs: int = 1,
    seed: int = 1,
    max_bad_rows: int = 100,
) -> Summary:
    """Write the propositions of some tasks, each given by files, folders and globs, shuffled, to `out`.

    The same input gives the same bytes. All items are in memory together. Malformed rows are written to
    `out` with `.quarantine` behind its name, if there are any.

    Args:
        task_files: TOML files with more tasks and families.
        language: of a family that is named in place of a task.
        licenses: of tasks whose rows say none.
        pairs: true propositions of an item, and false ones, as far as there are wordings.
        max_bad_rows: malformed rows of all tasks together beyond which the rest is not read.

    Raises:
        RecipeError: a flag or a template is wrong, or a label unknown. DataError: a file is damaged, too
        many rows are malformed, or a task's items have one label. DiskError: `out` cannot be written.
    """
    library, bad = Library(*task_files), BadRows(max_bad_rows)
    read = [
        _Task(library.template(name, language), paths, (licenses or {}).get(name, ""), bad)
        for name, paths in tasks.items()
    ]
    sifted = sift((task.template, task.items) for task in read)
    lines: list[str] = []
    summaries: list[TaskSummary] = []
    for task, items, copies, lost in zip(
        read, sifted.items, sifted.copies, sifted.contradictory, strict=True
    ):
        check_fields(task.template, items)
        draw = random.Random(f"{seed} {task.template.name}")
        made = list(propositions(task.template, items, pairs, draw))
        lines += (_line(task.template, one) for one in made)
        used = len({one.item.where for one in made})
        dropped = {"label": task.dropped, "copy": copies, "contradiction": lost, "balance": len(items) - used}
        summaries.append(_summary(task, made, dropped))
    random.Random(seed).shuffle(lines)
    _write(out, lines)
    if bad.rows:
        _write(
            out.with_name(f"{out.name}.quarantine"), [json.dumps(row, ensure_ascii=False) for row in bad.rows]
        )
    return Summary(summaries, sifted.contradictions, len(bad.rows))


def _summary(task: _Task, made: Sequence[Proposition], dropped: Mapping[str, int]) -> TaskSummary:
    true = sum(one.true for one in made)
    return TaskSummary(
        task=task.template.name,
        language=task.template.language,
        items=len(task.items),
        true=true,
        false=len(made) - true,
        dropped=dropped,
        alone=accuracy_alone(made),
    )


def _line(template: Template, one: Proposition) -> str:
    row = {
        "text": one.item.text,
        "proposition": one.statement,
        "signal": one.true,
        "task": template.name,
        "language": template.language,
        "source": one.item.where,
        "license": one.item.license,
    }
    return json.dumps(row, ensure_ascii=False)


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write a file that appears whole. Raises DiskError."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DiskError(
            "The propositions cannot be written",
            where=str(path),
            why=error.strerror or str(error),
            fix="free some space, or name a file in a folder that can be written",
        ) from error
