"""What one preparation is asked to do. Two commands with the same plan give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import xxhash
from pydantic import BaseModel, ConfigDict

from growlm import __version__
from growlm.data.manifest import Kind
from growlm.data.reading.files import File
from growlm.errors import DataError

SourceKind = Literal["text", "signals", "instructions", "tokens"]
"""As in the manifest; and `tokens`: running text that is tokenised already."""

_LARGEST_PART, _SMALLEST_PART = 64 << 20, 1 << 20
_PARTS = 64  # so many at least, of a large input: work for as many cores


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stamp(_Entry):
    """A file, and how to see that it has changed."""

    path: str
    size: int
    modified: int

    @classmethod
    def of(cls, path: File) -> Stamp:
        """The stamp of a file as it is now. Raises DataError: it cannot be looked at."""
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(
                "A source cannot be read", where=str(path), why=error.strerror or str(error)
            ) from error
        return cls(path=str(path.absolute()), size=found.st_size, modified=found.st_mtime_ns)


class SourcePlan(_Entry):
    """One source."""

    kind: SourceKind = "text"
    files: tuple[Stamp, ...]
    indexes: tuple[Stamp, ...] = ()
    """Of `tokens`: what lies beside the files and says how to read them."""
    license: str = ""
    """Of documents that do not state their own."""
    language: str | None = None
    """Leave out documents in any other."""
    weight: float | None = None
    """Its share of the tokenizer's sample, relative to the other sources'."""

    @property
    def stored(self) -> Kind:
        """What the manifest calls it."""
        return "text" if self.kind == "tokens" else self.kind

    @property
    def where(self) -> str:
        """The first files, for messages."""
        return ", ".join(stamp.path for stamp in self.files[:3])


class Plan(_Entry):
    """A preparation."""

    version: str = __version__
    sources: dict[str, SourcePlan]
    vocab_size: int
    tokenizer: str | None
    """Hash of the tokenizer that was given; None if one is trained."""
    validation_share: float
    shard_bytes: int
    part_bytes: int
    """Text of one task, about, which decides what it takes of memory; no token depends on it."""
    max_bad_rows: int
    near_duplicates: bool
    quality: bool
    pii: bool
    decontaminate: tuple[Stamp, ...]
    detector: str | None = None
    """What tells languages apart, where a source has one."""

    @property
    def key(self) -> str:
        """xxh3-64 of all that decides a byte, as 16 hex digits: not of how many rows may be bad."""
        return xxhash.xxh3_64_hexdigest(self.model_dump_json(exclude={"max_bad_rows"}).encode())


def bytes_of(sources: Mapping[str, SourcePlan]) -> int:
    """Size of all files."""
    return sum(stamp.size for source in sources.values() for stamp in source.files)


def part_bytes_of(size: int) -> int:
    """Size of a part of an input of `size` bytes: a large input is cut finely enough for many cores."""
    return min(_LARGEST_PART, max(_SMALLEST_PART, size // _PARTS))


def stamps(paths: Iterable[File]) -> tuple[Stamp, ...]:
    """The stamps of some files. Raises DataError."""
    return tuple(map(Stamp.of, paths))
