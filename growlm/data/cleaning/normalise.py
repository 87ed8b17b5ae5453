"""One spelling for the same text: newlines, control characters, Unicode normal form."""

from __future__ import annotations

import re
import unicodedata

from growlm.errors import DataError

_BREAKS = "\r\v\f\x1c-\x1e\x85\u2028\u2029"
_OTHERS = "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufeff\ufffe\uffff"
_NEWLINE, _REMOVED = re.compile(f"\r\n?|[{_BREAKS}]"), re.compile(f"[{_OTHERS}]+")
_CONTROL = re.compile(f"[{_BREAKS}{_OTHERS}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_MARKS = 30
_DOUBLE = "\u0f73\u0f75\u0f81"  # starters that decompose into two marks
_MARKS = "".join(c for c in map(chr, range(0x300, 0x20000)) if unicodedata.combining(c) or c in _DOUBLE)
_TOO_MANY = re.compile(f"([{_MARKS}]{{{_MOST_MARKS}}})[{_MARKS}]+")
_MARK = re.compile(f"[{''.join(c for c in _MARKS if c < chr(0x10000))}\U00010000-\U0001ffff]")
"""A mark, or what may be one; with `_NO_WORD`, since `_TOO_MANY` is slow to search."""
_NO_WORD = re.compile(rf"\W{{{_MOST_MARKS + 1},}}")


def normalise(text: str) -> str:
    r"""The same text with one kind of line end, without control characters, in NFC; idempotent.

    Every line break of Unicode becomes `\n`; of the other control characters only the tab stays; byte
    order marks and noncharacters go. NFC is canonical (Unicode Standard Annex 15): it unites spellings of the
    same character and changes none (full-width forms, ligatures and superscripts stay what they are). Of a
    run of combining marks the first 30 stay, the limit of Annex 15's Stream-Safe Text Format: no language
    needs more, and the time of NFC is quadratic in them.

    Raises:
        DataError: half of a surrogate pair, which no encoding can write.
    """
    if half := None if text.isascii() else _SURROGATE.search(text):
        raise DataError(
            "A text holds half of a surrogate pair",
            where=f"character {half.start()}",
            why=f"\\u{ord(half[0]):04x} alone is no character",
            fix="write the text again with whole characters",
        )
    if _CONTROL.search(text):
        text = _REMOVED.sub("", _NEWLINE.sub("\n", text))
    if text.isascii() or not _MARK.search(text):
        return unicodedata.normalize("NFC", text)
    text = unicodedata.normalize("NFC", _without_long_runs(text))
    return _without_long_runs(text)  # again: some letters decompose into a letter and a mark


def _without_long_runs(text: str) -> str:
    return _NO_WORD.sub(lambda run: _TOO_MANY.sub(r"\1", run[0]), text)
