"""The documents of a source, one after the other in bounded memory, checked on the way."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from growlm.data.files import extra, kind, open_bytes
from growlm.errors import DataError

CUT_CHARS = 1 << 15
"""Text files longer than twice this are cut into documents of one to two times this many characters."""
LINE_BYTES = 1 << 30
"""Longest line of a JSONL file: one document is held in memory."""
_READ = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n")


def documents(files: Iterable[Path]) -> Iterator[str]:
    """Every document of a source, in file order; the only one is cut, so that it can be split.

    JSONL and Parquet: the field `text`. Text files: the whole file, or pieces of it (`cut`).

    Raises:
        DataError: binary or wrongly encoded text, a broken line, a missing field, a damaged file.
    """
    stream = chain.from_iterable(map(_read, files))
    first, second = next(stream, None), next(stream, None)
    if first is None:
        return
    if second is None:
        yield from cut([first], min(CUT_CHARS, max(1, len(first) // 32)))
    else:
        yield from chain((first, second), stream)


def cut(chunks: Iterable[str], target: int = CUT_CHARS) -> Iterator[str]:
    """Cut a stream of text into documents of `target` to `2 * target` characters; they join to the whole.

    The cut is at the first blank line after `target`, else the last line end, else the last white
    space, else (one endless word) at `2 * target`. Text of less than `2 * target` stays whole.
    """
    buffer = ""
    for chunk in chunks:
        buffer, start = buffer + chunk, 0
        while len(buffer) - start >= 2 * target:
            end = _boundary(buffer, start + target, start + 2 * target)
            yield buffer[start:end]
            start = end
        buffer = buffer[start:]
    if buffer:
        yield buffer


def _boundary(text: str, low: int, high: int) -> int:
    blank = _PARAGRAPH.search(text, low, high)
    if blank:
        return blank.end()
    line = text.rfind("\n", low, high) + 1
    if line:
        return line
    spaces = (i + 1 for i in range(high - 1, low - 1, -1) if text[i].isspace())
    return next(spaces, high)


def _read(path: Path) -> Iterator[str]:
    return {"text": _read_text, "jsonl": _read_jsonl, "parquet": _read_parquet}[kind(path)](path)


def _read_text(path: Path) -> Iterator[str]:
    with open_bytes(path) as file:
        yield from cut(_decoded(file, path))


def _decoded(file: BinaryIO, path: Path) -> Iterator[str]:
    """UTF-8 text in pieces, without a byte order mark."""
    decoder, start, head = codecs.getincrementaldecoder("utf-8")(), 0, True
    while True:
        block = file.read(_READ)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _undecodable(error, str(path), start - pending) from error
        if "\0" in text:
            raise _binary(str(path), start + block.find(b"\0"))
        if not block:
            return
        start += len(block)
        yield text.removeprefix("\ufeff") if head else text
        head = False


def _read_jsonl(path: Path) -> Iterator[str]:
    with open_bytes(path) as file:
        number = offset = 0
        while line := file.readline(LINE_BYTES):
            number += 1
            where = f"{path}:{number}"
            if len(line) == LINE_BYTES and not line.endswith(b"\n"):
                raise DataError("A line is longer than 1 GiB", where=where, fix="one JSON object per line")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise _undecodable(error, where, offset) from error
            offset += len(line)
            if text:
                yield _text_of(text, where)


def _text_of(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            "A line is not a JSON object",
            where=where,
            why=str(error),
            fix="repair or remove the line; every line is one whole JSON object",
        ) from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        fields = ", ".join(map(repr, record)) if isinstance(record, dict) else f"a {type(record).__name__}"
        raise DataError(
            "A line has no field `text` with a string",
            where=where,
            why=f"it has {fields or 'no field'}"[:300],
            fix='write documents as {"text": "..."}',
        )
    return _whole_characters(text, where)


def _read_parquet(path: Path) -> Iterator[str]:
    parquet, arrow = extra("pyarrow.parquet", path), extra("pyarrow", path)
    try:
        with parquet.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise DataError(
                    "A Parquet file has no column `text`",
                    where=str(path),
                    why=f"its columns are {', '.join(file.schema_arrow.names)}",
                    fix="rename the column that holds the text to `text`",
                )
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    if not isinstance(text, str):
                        raise DataError(
                            "A row has no text", where=f"{path}: row {row}", fix="drop rows without text"
                        )
                    yield _whole_characters(text, f"{path}: row {row}")
                    row += 1
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            "A Parquet file cannot be read",
            where=str(path),
            why=str(error)[:300],
            fix="fetch or write it again",
        ) from error


def _binary(where: str, offset: int) -> DataError:
    return DataError(
        "A file is binary, not text",
        where=f"{where}: byte {offset}",
        why="it holds a zero byte",
        fix="leave it out of the source",
    )


def _undecodable(error: UnicodeDecodeError, where: str, offset: int) -> DataError:
    """The message for bytes that are not UTF-8; says so where they are binary, UTF-16 or GB 18030 (GBK)."""
    block, start = error.object, error.start
    encoding = "UTF-16" if block.startswith(_UTF16) else _chinese(block[start : start + 4096])
    if b"\0" in block and encoding != "UTF-16":
        return _binary(where, offset + block.find(b"\0"))
    return DataError(
        "A text file is not UTF-8",
        where=f"{where}: byte {offset + start}",
        why=f"byte 0x{block[start]:02x}: {error.reason}"
        + (f"; it looks like {encoding}" if encoding else ""),
        fix=f"convert it: iconv -f {encoding or 'ITS-ENCODING'} -t UTF-8",
    )


def _chinese(sample: bytes) -> str:
    """`GB18030` (of which GBK and GB 2312 are parts) if the bytes fit it, else ""."""
    for trim in range(4):  # the sample may end inside a character
        try:
            return "GB18030" if sample[: len(sample) - trim].decode("gb18030") else ""
        except UnicodeDecodeError:
            continue
    return ""


def _whole_characters(text: str, where: str) -> str:
    """The text itself. Raises DataError for half of a surrogate pair, which no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            "A text holds half of a surrogate pair",
            where=f"{where}: character {error.start}",
            why=f"\\u{ord(text[error.start]):04x} alone is no character",
            fix="write the text again with whole characters",
        ) from error
    return text
