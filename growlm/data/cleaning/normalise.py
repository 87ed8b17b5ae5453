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


def normalise(text: str) -> str:
    r"""The same text with one kind of line end, without control characters, in NFC; idempotent.

    Every line break of Unicode becomes `\n`; of the other control characters only the tab stays; byte
    order marks and noncharacters go. NFC is canonical (Unicode Standard Annex 15): it unites spellings of the
    same character and changes none (full-width forms, ligatures and superscripts stay what they are).

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
    return unicodedata.normalize("NFC", text)
