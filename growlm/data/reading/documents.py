"""The documents of a source, one after the other in bounded memory, checked on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from growlm.data.reading.columns import arrow_rows, parquet_rows
from growlm.data.reading.files import File, kind
from growlm.data.reading.rows import START_CHARS, Extent, OnBad, Row, jsonl_rows, refuse
from growlm.data.reading.text import CUT_CHARS, check_characters, cut, texts
from growlm.data.segments import Document, text_document
from growlm.errors import DataError

_FIELDS = ("text", "license")


def documents(files: Iterable[File], on_bad: OnBad = refuse) -> Iterator[Document]:
    """Every document of a source, in file order; the only one is cut, so that it can be split.

    Raises DataError: see `read`.
    """
    stream = chain.from_iterable(read(path, on_bad=on_bad) for path in files)
    first, second = next(stream, None), next(stream, None)
    if first is None:
        return
    if second is None:
        yield from pieces_of(first)
    else:
        yield from chain((first, second), stream)


def read(path: File, extent: Extent | None = None, on_bad: OnBad = refuse) -> Iterator[Document]:
    """The documents of a file or of a part of it, in order.

    Rows: the field `text`, and `license` where there is one. Text files: the whole file, or pieces of it.
    Bad rows: broken JSON, no text, half of a surrogate pair; `on_bad` decides whether to go on.

    Raises:
        DataError: binary or wrongly encoded text, a damaged file, what `on_bad` raises.
    """
    if kind(path) == "text":
        yield from map(text_document, texts(path))
        return
    for where, record in rows(path, extent, on_bad, _FIELDS):
        try:
            yield _document(record, where)
        except DataError as error:
            on_bad(error, str(record)[:START_CHARS])


def rows(
    path: File,
    extent: Extent | None = None,
    on_bad: OnBad = refuse,
    columns: Sequence[str] | None = None,
) -> Iterator[Row]:
    """(where, object) of every row of a file or of a part of it; `columns`: see `parquet_rows`.

    Raises:
        DataError: a file of running text or a damaged file, what `on_bad` raises.
    """
    form = kind(path)
    if form == "text":
        raise DataError(
            "Examples are rows, and this file has none",
            where=str(path),
            fix="write one JSON object a line, as .jsonl",
        )
    if form == "jsonl":
        return jsonl_rows(path, extent, on_bad)
    return arrow_rows(path, columns) if form == "arrow" else parquet_rows(path, extent, columns)


def pieces_of(only: Document) -> Iterator[Document]:
    """The one document of a source in about 32 pieces, of at most twice `CUT_CHARS` characters."""
    text = only.text
    for piece in cut([text], min(CUT_CHARS, max(1, len(text) // 32))):
        yield text_document(piece, only.license)


def _document(record: dict[str, Any], where: str) -> Document:
    """Raises DataError: no text."""
    text = record.get("text")
    if not isinstance(text, str):
        fields = ", ".join(map(repr, record))[:300] or "no field"
        raise DataError(
            "A row has no field `text` with a string",
            where=where,
            why=f"its `text` is a {type(text).__name__}" if "text" in record else f"it has {fields}",
            fix='write documents as {"text": "..."}',
        )
    check_characters(text, where)
    said = record.get("license")
    return text_document(text, said if isinstance(said, str) else "")
