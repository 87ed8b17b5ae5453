"""cl100k and its kin: a file of ranks (`*.tiktoken`) as a byte-level BPE with the same ids."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from tokenizers import models

from growlm.data.tokenizer import SPECIALS, Tokenizer, add_specials, byte_level, check_plain
from growlm.errors import DataError


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer of either kind: ranks (`*.tiktoken`) or a `tokenizer.json`. Raises DataError."""
    return load_ranks(path) if path.suffix == ".tiktoken" else Tokenizer.load(path)


def load_ranks(path: Path) -> Tokenizer:
    """A tokenizer whose ids are the ranks of the file, and after the last `SPECIALS`.

    The library of these files merges any two neighbours whose joint bytes have a rank, the lowest rank
    first. So every way to cut a token in two known tokens is a merge, in the order of the tokens' ranks.

    Raises:
        DataError: the file cannot be read, or its ranks do not run from 0 without gap over all bytes.
    """
    ranks = _read(path)
    spell = [_spelling(data) for data in ranks]
    merges = [
        (spell[left], spell[right])
        for data in ranks
        for left, right in sorted(
            (ranks[data[:i]], ranks[data[i:]])
            for i in range(1, len(data))
            if data[:i] in ranks and data[i:] in ranks
        )
    ]
    vocab = {token: rank for rank, token in enumerate(spell)}
    inner = byte_level(models.BPE(vocab, merges, ignore_merges=True))
    add_specials(inner, SPECIALS)
    tokenizer = Tokenizer(inner)
    check_plain(tokenizer, path)
    return tokenizer


def _read(path: Path) -> dict[bytes, int]:
    """Bytes to rank, in the order of ranks."""
    ranks: dict[bytes, int] = {}
    try:
        for number, line in enumerate(path.read_bytes().splitlines()):
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
            if int(rank) != number or len(ranks) != number + 1:
                raise ValueError(f"line {number + 1}: a token occurs twice or the ranks have a gap")
    except (OSError, ValueError, binascii.Error) as error:
        raise DataError(
            "A file of ranks cannot be read", where=str(path), why=str(error), fix="fetch it again"
        ) from error
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise DataError(
            "A file of ranks lacks single bytes",
            where=str(path),
            why=f"byte 0x{missing[0]:02x} has no rank, so some text could not be written",
            fix="fetch it again",
        )
    return ranks


def _spelling(data: bytes) -> str:
    """The printable spelling that byte-level BPE gives to bytes."""
    return "".join(map(_BYTE_CHARS.__getitem__, data))


def _byte_chars() -> list[str]:
    """One printable character per byte: itself where it is printable, else one from U+0100 on (as GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_BYTE_CHARS = _byte_chars()
