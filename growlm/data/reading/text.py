"""Running text: checked to be UTF-8, in pieces of bounded size, cut into documents."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from growlm.data.reading.files import File, open_bytes
from growlm.errors import DataError

CUT_CHARS = 1 << 15
"""Text files longer than twice this are cut into documents of one to two times this many characters."""
_READ = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HAN = re.compile("[\u4e00-\u9fff]")
_LEAST_HAN = 0.2  # of the letters
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n")


def texts(path: File) -> Iterator[str]:
    """The documents of a text file: all of it, or pieces (`cut`). Raises DataError: not UTF-8, or binary."""
    with open_bytes(path) as file:
        yield from cut(_decoded(file, path))


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


def undecodable(error: UnicodeDecodeError, where: str, offset: int) -> DataError:
    """The message for bytes that are not UTF-8; says so where they are binary, UTF-16 or GB 18030 (GBK).

    `offset` is where the bytes of `error` begin in their file.
    """
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


def check_characters(text: str, where: str) -> None:
    """Raise DataError for half of a surrogate pair, which no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            "A text holds half of a surrogate pair",
            where=f"{where}: character {error.start}",
            why=f"\\u{ord(text[error.start]):04x} alone is no character",
            fix="write the text again with whole characters",
        ) from error


def _boundary(text: str, low: int, high: int) -> int:
    blank = _PARAGRAPH.search(text, low, high)
    if blank:
        return blank.end()
    line = text.rfind("\n", low, high) + 1
    if line:
        return line
    spaces = (i + 1 for i in range(high - 1, low - 1, -1) if text[i].isspace())
    return next(spaces, high)


def _decoded(file: BinaryIO, path: File) -> Iterator[str]:
    """UTF-8 text in pieces, without a byte order mark."""
    decoder, start, head = codecs.getincrementaldecoder("utf-8")(), 0, True
    while True:
        block = file.read(_READ)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise undecodable(error, str(path), start - pending) from error
        if "\0" in text:
            raise _binary(str(path), start + block.find(b"\0"))
        if not block:
            return
        start += len(block)
        yield text.removeprefix("\ufeff") if head else text
        head = False


def _binary(where: str, offset: int) -> DataError:
    return DataError(
        "A file is binary, not text",
        where=f"{where}: byte {offset}",
        why="it holds a zero byte",
        fix="leave it out of the source",
    )


def _chinese(sample: bytes) -> str:
    """`GB18030` (of which GBK and GB 2312 are parts) if the bytes fit it and are Chinese then, else ""."""
    for trim in range(4):  # the sample may end inside a character
        try:
            text = sample[: len(sample) - trim].decode("gb18030")
        except UnicodeDecodeError:
            continue
        usual = text.encode("gb2312", "ignore").decode("gb2312")  # not what é and a letter become
        return "GB18030" if len(_HAN.findall(usual)) > _LEAST_HAN * sum(map(str.isalpha, text)) else ""
    return ""
