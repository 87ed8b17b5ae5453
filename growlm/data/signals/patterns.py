"""Wordings with named fields: `{name}` only, so that a template is data and can reach nothing else."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """A wording; values are put into it once, so braces inside of a value are text."""

    source: str
    parts: tuple[tuple[str, str], ...]
    """(text, name of the field behind it, "" where there is none)."""

    @classmethod
    def parse(cls, source: str) -> Pattern:
        """Read `str.format`'s syntax, of which only plain names are allowed. Raises ValueError saying why."""
        parts: list[tuple[str, str]] = []
        for text, name, spec, conversion in string.Formatter().parse(source):
            if name is not None and not name.isidentifier():
                raise ValueError(f"{{{name}}} is not the plain name of a field")
            if spec or conversion:
                raise ValueError(f"{{{name}}} has a format or a conversion")
            parts.append((text, name or ""))
        return cls(source, tuple(parts))

    @property
    def fields(self) -> frozenset[str]:
        """Names that values are needed for."""
        return frozenset(name for _, name in self.parts if name)

    def fill(self, values: Mapping[str, str]) -> str:
        """The wording with its values."""
        return "".join(text + values[name] if name else text for text, name in self.parts)
