"""Personal data and secrets in running text: replaced by a word that says what was there.

Only what has a form that ordinary text hardly ever has, or a check digit. Names and postal addresses stay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

KINDS = ("key", "email", "id", "ip", "phone")
"""What is looked for, in this order: access keys, e-mail addresses, Chinese identity numbers, and so on."""

_KEY_STARTS = (
    *("AKIA", "ASIA", "LTAI", "AKID", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("glpat-", "hf_", "sk-", "xox", "eyJ", "PRIVATE KEY-----"),
)
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}"  # Amazon
    r"|LTAI[0-9A-Za-z]{12,20}|AKID[0-9A-Za-z]{32}"  # Alibaba, Tencent
    r"|AIza[0-9A-Za-z_-]{35}"  # Google
    r"|gh[opsur]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{60,90}|glpat-[0-9A-Za-z_-]{20}"
    r"|hf_[A-Za-z0-9]{34}|sk-[A-Za-z0-9_-]{20,200}|xox[abprs]-[0-9A-Za-z-]{10,80}"
    r"|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}"  # JSON web token
    r")(?![A-Za-z0-9_-])"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    r"(?:[A-Za-z0-9+/=:,\s]|-(?!----BEGIN)){1,20000}?-----END (?:[A-Z]+ )*PRIVATE KEY-----"
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])(?!git@)[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_+-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![A-Za-z0-9@-]|\.[A-Za-z0-9])"
)
_ID = re.compile(
    r"(?<![0-9A-Za-z.])[1-8]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[0-9Xx](?![0-9A-Za-z])"
)
_IP = re.compile(
    r"(?<![A-Za-z0-9_.:-])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){3,7})(?![A-Za-z0-9_:]|\.\d|-\d)"
)
_PHONE = re.compile(
    r"(?<![A-Za-z0-9_.,+/=-])(?:"
    r"(?:\+?86[ -]?)?1[3-9]\d(?:[ -]?\d{4}){2}"  # Chinese mobile
    r"|(?:\+?86[ -]?)?(?:\(0\d{2,3}\) ?|0\d{2,3}-)\d{7,8}"  # Chinese land line
    r"|\+[1-9]\d{0,2}[ -](?:\(\d{1,4}\)[ -]?)?\d{1,4}(?:[ -]\d{2,4}){1,4}|\+[1-9]\d{9,14}"  # E.164
    r"|(?:\([2-9]\d{2}\) ?|[2-9]\d{2}-)[2-9]\d{2}-\d{4}"  # North American
    r")(?![A-Za-z0-9_/=]|[.,+-]\d)"
)
_NUMBER, _COLONS = re.compile(r"\d[\d .()-]{5,}[\dXx]"), re.compile(r":[0-9A-Fa-f]{0,4}:")
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def redact(text: str) -> tuple[str, dict[str, int]]:
    """The text with `[EMAIL]`, `[PHONE]`, ... in place of what was found, and how often each of `KINDS` was.

    Identity numbers must have the right check digit and addresses of the internet must be public ones.
    Redacting twice changes nothing more.
    """
    found: dict[str, int] = {}
    for kind, pattern, valid in _rules(text):
        text, count = _replaced(text, f"[{kind.upper()}]", pattern, valid)
        if count:
            found[kind] = count
    return text, found


_Rule = tuple[str, re.Pattern[str], Callable[[str], bool]]


def _rules(text: str) -> list[_Rule]:
    """Those that a quick look at the text does not rule out."""
    rules: list[_Rule] = []
    if any(start in text for start in _KEY_STARTS):
        rules.append(("key", _KEY, _always))
    if "@" in text:
        rules.append(("email", _EMAIL, _always))
    if _NUMBER.search(text) or _COLONS.search(text):
        rules += [("id", _ID, _valid_id), ("ip", _IP, _public), ("phone", _PHONE, _phone_digits)]
    return rules


def _replaced(
    text: str, placeholder: str, pattern: re.Pattern[str], valid: Callable[[str], bool]
) -> tuple[str, int]:
    count = 0

    def replacement(match: re.Match[str]) -> str:
        nonlocal count
        if not valid(match[0]):
            return match[0]
        count += 1
        return placeholder

    return pattern.sub(replacement, text), count


def _always(match: str) -> bool:
    del match
    return True


def _valid_id(number: str) -> bool:
    """Check digit of a Chinese resident identity number: ISO 7064, MOD 11-2 (GB 11643-1999)."""
    total = sum(int(digit) * weight for digit, weight in zip(number, _ID_WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == number[-1].upper()


def _public(address: str) -> bool:
    """A public address, and not a version: those of four numbers have few digits."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and (parsed.version == 6 or len(address) >= 10)


def _phone_digits(number: str) -> bool:
    """Enough different digits for a number that somebody has: no 13000000000."""
    digits = [character for character in number if character.isdigit()]
    return 8 <= len(digits) <= 15 and len(set(digits)) >= 4
