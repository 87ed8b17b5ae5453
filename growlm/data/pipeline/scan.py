"""Phase 1: a part of a source is read and cleaned, into chunks; its bad rows are set aside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from growlm.data.cleaning.near import band_keys
from growlm.data.examples import instruction_document, signal_document
from growlm.data.pipeline.chunks import ChunkWriter
from growlm.data.pipeline.plan import SourcePlan, Stamp
from growlm.data.pipeline.steps import Cleaner, Tally, size_of
from growlm.data.pipeline.work import TOKENIZER, Part, Work
from growlm.data.reading.bad_rows import BadRows
from growlm.data.reading.documents import documents, read, rows
from growlm.data.reading.files import file_of
from growlm.data.reading.rows import START_CHARS
from growlm.data.reading.tokens import token_documents
from growlm.data.segments import Document, text_document
from growlm.data.tokenizer import Tokenizer
from growlm.errors import DataError

_EXAMPLES = {"signals": signal_document, "instructions": instruction_document}
_LICENSES = 1000  # different ones that are told apart in a part
_OTHER = "other"


def scan(work: Work, number: int, advance: Callable[[int], None]) -> None:
    """Read and clean part `number`. Raises DataError for what is wrong with it."""
    part = work.parts[number]
    source = work.plan.sources[part.source]
    with work.commit("scan", number) as folder:
        result = _Scan(work, source, folder).run(part, advance)
        _check_unchanged(source, part)
        (folder / "result.json").write_text(json.dumps(result))


class _Tokens(NamedTuple):
    """A document that is tokenised already."""

    ids: np.ndarray
    text_bytes: int


class _Scan:
    """What accumulates while a part is read."""

    def __init__(self, work: Work, source: SourcePlan, folder: Path) -> None:
        self._work, self._plan, self._source, self._folder = work, work.plan, source, folder
        self._bad = BadRows(work.plan.max_bad_rows)
        self._read = Tally("read")
        self._cleaner = Cleaner(source, work.plan, work.folder)
        self._licenses: dict[str, int] = {}
        self._chunks: list[tuple[int, int]] = []
        self._near = source.kind == "text" and work.plan.near_duplicates

    def run(self, part: Part, advance: Callable[[int], None]) -> dict[str, object]:
        is_tokens = self._source.kind == "tokens"
        cleaned = self._tokens(part, advance) if is_tokens else self._cleaned(part, advance)
        while (first := next(cleaned, None)) is not None:
            self._write_chunk(chain([first], cleaned))
        steps = [tally.step().model_dump() for tally in (self._read, *self._cleaner.tallies)]
        return {
            "chunks": self._chunks,
            "steps": steps,
            "licenses": list(self._licenses),
            "bad": self._bad.rows,
        }

    def _write_chunk(self, cleaned: Iterator[_Tokens | Document]) -> None:
        """Write documents until the chunk is full."""
        with ChunkWriter(self._folder, len(self._chunks), self._plan.part_bytes) as writer:
            for document in cleaned:
                if isinstance(document, _Tokens):
                    writer.add_ids(*document, self._license(""))
                else:
                    near = band_keys(document.text) if self._near else None
                    writer.add(document, self._license(document.license), near)
                if writer.full:
                    break
        self._chunks.append((writer.documents, writer.bytes))

    def _cleaned(self, part: Part, advance: Callable[[int], None]) -> Iterator[Document]:
        for document in _documents(part, self._source, self._bad):
            size = size_of(document)
            advance(size)
            self._read.count(size, size)
            cleaned = self._cleaner.clean(document)
            if cleaned is not None:
                yield cleaned
        for row in self._bad.rows:
            self._read.count(0, None, [row["reason"]])

    def _tokens(self, part: Part, advance: Callable[[int], None]) -> Iterator[_Tokens]:
        """Documents that are tokenised already, less those without a token or that a step leaves out."""
        tokenizer = Tokenizer.load(self._work.path("tokenizer", 0) / TOKENIZER)
        for stamp in self._source.files[part.first : part.end]:
            for ids in token_documents(file_of(stamp.path), tokenizer, part.extent):
                text = tokenizer.decode(ids[:-1].tolist())
                size = len(text.encode())
                advance(size)
                empty = len(ids) < 2
                self._read.count(size, None if empty else size, ["empty"] if empty else ())
                if not empty and self._cleaner.clean(text_document(text)) is not None:
                    yield _Tokens(ids, size)

    def _license(self, stated: str) -> int:
        name = stated or self._source.license
        if len(self._licenses) >= _LICENSES and name not in self._licenses:
            name = _OTHER
        return self._licenses.setdefault(name, len(self._licenses))


def _check_unchanged(source: SourcePlan, part: Part) -> None:
    """Raise DataError if a file of the part is not what it was when the preparation began."""
    for stamp in source.files[part.first : part.end]:
        if Stamp.of(file_of(stamp.path)) != stamp:
            raise DataError(
                "A file changed while it was read",
                where=stamp.path,
                why="its size or time is not what it was when the preparation began",
                fix="run again when nothing writes to it",
            )


def _documents(part: Part, source: SourcePlan, bad: BadRows) -> Iterator[Document]:
    files = [file_of(stamp.path) for stamp in source.files[part.first : part.end]]
    if source.kind == "text":
        if part.whole:
            yield from documents(files, bad.add)
        else:
            for file in files:
                yield from read(file, part.extent, bad.add)
        return
    make = _EXAMPLES[source.kind]
    for file in files:
        for where, row in rows(file, part.extent, bad.add):
            try:
                yield make(row, where)
            except DataError as error:
                bad.add(error, json.dumps(row, ensure_ascii=False, default=str)[:START_CHARS])
