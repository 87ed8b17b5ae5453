"""A benchmark's rows, from a folder of the user's or a package that carries them: checked and counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from growlm.errors import DataError
from growlm.evaluate.files import SUFFIXES, read_rows
from growlm.evaluate.knowledge.benchmarks import Benchmark, Row, Rows

SPLITS = {
    "test": ("test", "test-public"),
    "validation": ("validation", "val", "dev", "valid", "test-public"),
    "val": ("val", "validation"),
    "dev": ("dev",),
    "train": ("train",),
}
"""What files call each split of the harness's, the likeliest first."""

Find = Callable[..., Path | None]
"""As `Folder.find`."""


@dataclass
class Loaded:
    """A benchmark with its rows."""

    benchmark: Benchmark
    splits: dict[str, dict[str, Rows]]
    """Of each of the harness's tasks, by split."""
    notes: list[str] = field(default_factory=list)
    """What a reader of its scores must know: other numbers of rows, what is missing."""
    files: list[str] = field(default_factory=list)

    @property
    def examples(self) -> str | None:
        """The split that examples can be taken from."""
        return next(
            (s for s in self.benchmark.examples if all(s in rows for rows in self.splits.values())), None
        )

    @property
    def most_shots(self) -> int:
        """How many examples can be given, in each of the harness's tasks."""
        split = self.examples
        if split is None:
            return 0
        # where no split is named for them, the harness draws one to spare, for the asked document
        spare = 0 if "dev" in self.benchmark.examples or self.benchmark.split == "test" else 1
        return max(0, min(len(rows[split]) for rows in self.splits.values()) - spare)


def load(benchmark: Benchmark, find: Find) -> Loaded | None:
    """A benchmark's rows; None: the split that is asked is not there.

    Raises DataError: a row that is none of this benchmark (file and line), two files of a name.
    """
    found = Loaded(benchmark, {})
    for split in (benchmark.split, *benchmark.examples):
        for task, path, rows in _split(benchmark, split, find):
            found.splits.setdefault(task, {})[split] = rows
            if str(path) not in found.files:
                found.files.append(str(path))
    found.splits = {task: rows for task, rows in found.splits.items() if benchmark.split in rows}
    if not found.splits:
        return None
    found.notes = list(_notes(found))
    return found


def wanted(benchmark: Benchmark) -> str:
    """What its file is called, for a message."""
    return f"{benchmark.files[0]}-{SPLITS[benchmark.split][0]}{SUFFIXES[0]}"


def _split(benchmark: Benchmark, split: str, find: Find) -> Iterator[tuple[str, Path, Rows]]:
    """(task of the harness, file, rows) of one split."""
    names = [f"{file}-{name}" for name in SPLITS[split] for file in benchmark.files]
    if split == benchmark.split:  # a file without a split in its name is of the only one there is
        names += [file for file in benchmark.files if "-" in file]
    path = find(*names)
    if path is None and benchmark.subjects:
        yield from _subject_files(benchmark, split, find)
    elif path is not None and benchmark.subjects:
        yield from _by_subject(benchmark, path)
    elif path is not None:
        rows = convert(benchmark, path)
        yield from ((task, path, rows) for task in benchmark.tasks)


def convert(benchmark: Benchmark, path: Path) -> Rows:
    """The rows of a file in the harness's columns. Raises DataError with the place of a wrong row."""
    return [row for _, converted in _converted(benchmark, path) for row in converted]


def _converted(benchmark: Benchmark, path: Path) -> Iterator[tuple[Row, Rows]]:
    first = 2 if ".csv" in path.suffixes else 1
    for number, row in enumerate(read_rows(path), first):
        try:
            yield row, benchmark.convert(row)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise DataError(
                f"A row is none of {benchmark.name}",
                where=f"{path}:{number}",
                why=f"it has no {error}" if isinstance(error, KeyError) else str(error),
                fix="docs/evaluation.md lists the columns; fetch the file again, or leave it out with --task",
            ) from error


def _by_subject(benchmark: Benchmark, path: Path) -> Iterator[tuple[str, Path, Rows]]:
    """A file of all subjects, with a column that says which."""
    rows: dict[str, Rows] = {}
    for number, (row, converted) in enumerate(_converted(benchmark, path), 1):
        subject = str(row.get("subject", "")).replace(" ", "_")
        if subject not in benchmark.subjects:
            raise DataError(
                f"A row is of no subject of {benchmark.name}",
                where=f"{path}:{number}",
                why=f"its `subject` is {subject!r}",
                fix="write the subject's name in the column `subject`: docs/evaluation.md",
            )
        rows.setdefault(subject, []).extend(converted)
    yield from ((benchmark.task_of.format(subject), path, found) for subject, found in rows.items())


def _subject_files(benchmark: Benchmark, split: str, find: Find) -> Iterator[tuple[str, Path, Rows]]:
    """A file of each subject: `mmlu/test/anatomy.csv`, `mmlu/anatomy/test.parquet`, ..."""
    for subject in benchmark.subjects:
        forms = ("{0}-{1}-{2}", "{0}-{2}-{1}", "{0}-{1}-{2}-{1}", "{0}-data-{1}-{2}-{1}")
        stems = (benchmark.files[0], benchmark.files[-1])
        path = find(*(form.format(stem, split, subject) for stem in stems for form in forms))
        if path is not None:
            yield benchmark.task_of.format(subject), path, convert(benchmark, path)


def _notes(found: Loaded) -> Iterator[str]:
    benchmark, asked = found.benchmark, _asked(found)
    rows, official = len(asked), benchmark.official
    if rows not in official:
        yield f"{rows:,} rows, the official set has {' or '.join(f'{count:,}' for count in official)}"
    elif official[rows]:
        yield f"{rows:,} rows: {official[rows]}"
    if missing := [t for t in benchmark.harness_tasks() if t not in found.splits]:
        names = ", ".join(re.sub(r"^\w+?[_-](valid_)?", "", task) for task in missing[:5])
        more = ", ..." if len(missing) > 5 else ""
        yield f"{len(missing)} of {len(benchmark.subjects)} subjects are missing: {names}{more}"
    if said := benchmark.check(asked):
        yield said


def _asked(found: Loaded) -> Rows:
    """Every row that is asked, once."""
    by_task: Iterable[Rows] = (rows[found.benchmark.split] for rows in found.splits.values())
    if found.benchmark.subjects:
        return [row for rows in by_task for row in rows]
    return next(iter(by_task))
