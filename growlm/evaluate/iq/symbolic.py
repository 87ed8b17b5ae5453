"""Symbolic mapping: labelled sets whose labels are replaced by strings that nobody has ever read.

After symbol tuning (arXiv:2305.08298). The strings of an item are drawn for it alone: what a symbol means
can be learnt from the item's shots and from nowhere else, not even from other items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from growlm.errors import DataError
from growlm.evaluate.files import SUFFIXES, Folder, read_rows
from growlm.evaluate.iq.draws import Draws
from growlm.evaluate.iq.task import VERSION, Dial, Item, Setup, Task, flag

_SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + "%?@#&*!$+=" * 2
_NO_LABEL = ("-", "-1", "none", "")


def label_shots(usual: int) -> dict[str, Dial]:
    """The dial of symbolic mapping."""
    return {"shots": Dial((usual,), 0, 16, "solved examples of each label before the question")}


class Labelled(NamedTuple):
    """A row as the model sees it, and its label."""

    query: str
    label: str


@dataclass(frozen=True)
class Symbolic(Task):
    """A task made from a labelled set in files of the user's."""

    validation: tuple[str, ...] = ()
    """Names of the file whose rows are asked, the first that is there (`Folder.find`)."""
    train: tuple[str, ...] = ()
    """Names of the file that shots come from; without one they are other rows of the same file."""
    rows: tuple[int, ...] = ()
    """How many rows the published files have."""
    labels: tuple[str, ...] = ()
    """As in the files, in small letters."""
    numbers: tuple[str, ...] = ()
    """The same labels as other copies have them."""
    instruction: str = ""
    read: Callable[[dict[str, Any]], str] = field(kw_only=True)
    """A row's query."""
    zh: bool = False

    def label(self, setup: Setup) -> str:  # noqa: ARG002
        """Its name: it is in the language of its set."""
        return self.name

    def wanted(self) -> str:
        """The files it needs, in words."""
        shots = f", shots from {' or '.join(self.train)}" if self.train else ""
        return f"{' or '.join(self.validation)} ({SUFFIXES[0]}, {SUFFIXES[3]}, ...){shots}"

    def there(self, folder: Folder | None) -> bool:
        """Whether its rows are in the folder. Raises DataError: see `Folder.find`."""
        return folder is not None and folder.find(*self.validation) is not None

    def make(self, setup: Setup) -> tuple[list[Item], list[str]]:
        """See `Task`; at most as many items as the set has rows. Raises DataError for damaged data."""
        self.check(setup.dials)
        rows, pool, notes = self._read(setup.folder)
        order = Draws("iq", VERSION, self.name, setup.seed, "rows").shuffled(range(len(rows)))
        asked = self.items if setup.items is None else setup.items
        if asked > len(rows):
            notes.append(f"{asked:,} items were asked for, the set has {len(rows):,}")
        made = [self._item(index, rows[at], (pool, rows), setup) for index, at in enumerate(order[:asked])]
        return made, notes

    def _read(self, folder: Folder | None) -> tuple[list[Labelled], list[Labelled], list[str]]:
        """The rows to ask, those to take shots from, and remarks."""
        path = folder.find(*self.validation) if folder else None
        if path is None or folder is None:
            raise DataError(
                f"{self.name} is made from files that are not there",
                where=f"--data-dir {folder.path}" if folder else f"--task {self.name} without --data-dir",
                why=f"wanted: {self.wanted()}",
                fix="--data-dir FOLDER with them: docs/evaluation.md says where to get them",
            )
        found = read_rows(path)
        rows, notes = self._labelled(found, path), self._remarks(path, len(found))
        train = folder.find(*self.train) if self.train else None
        if self.train and train is None:
            notes.append(f"no {' or '.join(self.train)}: shots are other rows of {path.name}")
        return rows, self._labelled(read_rows(train), train) if train else [], notes

    def _labelled(self, rows: Sequence[dict[str, Any]], path: Path) -> list[Labelled]:
        found = []
        for number, row in enumerate(rows, 1):
            try:
                label = str(row["answer"] if "label" not in row else row["label"]).lower()
                if label in _NO_LABEL:
                    continue
                found.append(Labelled(self.read(row), self.labels[self._place(label)]))
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise DataError(
                    f"A row is not as {self.name} has them",
                    where=f"{path}:{number}",
                    why=f"{type(error).__name__}: {error}",
                    fix="docs/evaluation.md, The IQ suite, has the fields",
                ) from error
        return found

    def _place(self, label: str) -> int:
        """The index of a label, by its name or by its number in the hub's copies."""
        return self.labels.index(label) if label in self.labels else self.numbers.index(label)

    def _remarks(self, path: Path, count: int) -> list[str]:
        if count in self.rows:
            return []
        published = " or ".join(f"{rows:,}" for rows in self.rows)
        return [f"{path.name} has {count:,} rows, the published file {published}: another set of items"]

    def _item(
        self, index: int, asked: Labelled, pools: tuple[list[Labelled], list[Labelled]], setup: Setup
    ) -> Item:
        draws = Draws("iq", VERSION, self.name, setup.seed, index)
        symbols = draws.distinct(lambda: f"<{draws.text(_SYMBOLS, 8)}>", len(self.labels))
        meaning = dict(zip(self.labels, symbols, strict=True))
        count = setup.dials.get("shots", self.dials["shots"].values[0])
        shots = [row for label in self.labels for row in self._shots(draws, label, asked, pools, count)]
        return Item(
            asked.query,
            meaning[asked.label],
            instruction=self.instruction,
            shots=tuple((row.query, meaning[row.label]) for row in draws.shuffled(shots)),
            delimiter="" if self.zh else " ",
            choices=tuple(symbols),
            chance=1 / len(self.labels),
            task=self.name,
            index=index,
        )

    def _shots(
        self,
        draws: Draws,
        label: str,
        asked: Labelled,
        pools: tuple[list[Labelled], list[Labelled]],
        count: int,
    ) -> list[Labelled]:
        """`count` rows of a label: of the train split if it has so many, else of the rows that are asked."""
        train, rest = pools
        found = [row for row in train if row.label == label and row.query != asked.query]
        if len(found) < count:
            found = [row for row in rest if row.label == label and row.query != asked.query]
        if len(found) >= count:
            return draws.sample(found, count)
        raise DataError(
            f"{self.name} has too few rows for {count} shots of each label",
            where=flag("shots", count),
            why=f"label {label!r} has {len(found)}",
            fix=flag("shots", len(found)),
        )
