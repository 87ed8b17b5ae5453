"""Personal data and secrets in running text, replaced by what they were."""

from __future__ import annotations

import re
from collections.abc import Callable

_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])"
)
_ID = re.compile(
    r"(?<![0-9A-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[0-9Xx](?![0-9A-Za-z])"
)
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def redact(text: str) -> tuple[str, dict[str, int]]:
    """The text with placeholders like `[EMAIL]`, and how many of each kind there were."""
    found: dict[str, int] = {}
    for kind, pattern, valid in _RULES:
        text, count = _replaced(text, kind, pattern, valid)
        if count:
            found[kind] = count
    return text, found


def _replaced(
    text: str, kind: str, pattern: re.Pattern[str], valid: Callable[[str], bool]
) -> tuple[str, int]:
    count = 0

    def placeholder(match: re.Match[str]) -> str:
        nonlocal count
        if not valid(match[0]):
            return match[0]
        count += 1
        return f"[{kind.upper()}]"

    return pattern.sub(placeholder, text), count


def _valid_id(number: str) -> bool:
    """Check digit of a Chinese resident identity number: ISO 7064, MOD 11-2 (GB 11643-1999)."""
    total = sum(int(digit) * weight for digit, weight in zip(number, _ID_WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == number[-1].upper()


_RULES: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", _EMAIL, lambda _: True),
    ("id", _ID, _valid_id),
)
