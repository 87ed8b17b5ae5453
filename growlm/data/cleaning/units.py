"""A text as units (words, and of Chinese, Japanese and Korean characters), each as a 64-bit hash.

Case, white space and punctuation do not count, so that two texts with the same units say the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

_OTHER, _DIGIT, _LETTER, _ALONE = range(4)
_ALONE_BLOCKS = (
    (0x3041, 0x3100),  # kana
    (0x3105, 0x3130),  # bopomofo
    (0x31A0, 0x3200),  # more of both
    (0x3400, 0x4DC0),  # Han
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x40000),
)
"""Blocks whose letters are units of their own: scripts written without spaces between words."""
_TABLE = 0x20000
_PIECE = 1 << 16  # characters at a time: what they need stays in the second cache
LONG_TEXT = 1 << 20
"""Characters that are looked at at a time: this bounds the memory of every rule, at about 150 MB."""
_OVERLAP = 1 << 10
_BOUNDARY = re.compile(r"[^\w]|[\u4e00-\u9fff]")
_BASE, _INVERSE = 0x9E3779B97F4A7C15, pow(0x9E3779B97F4A7C15, -1, 1 << 64)


class Units(NamedTuple):
    """The units of a text, in order."""

    hashes: np.ndarray
    """(U,) uint64."""
    starts: np.ndarray
    """(U,) first character of each unit in the lower-case text."""
    ends: np.ndarray
    """(U,) the character after its last."""
    alone: np.ndarray
    """(U,) bool: a character of a script without spaces."""
    alphabetic: np.ndarray
    """(U,) bool: has a letter."""


@lru_cache(maxsize=1)
def units(text: str) -> Units:
    """The units of a text: runs of letters, digits and marks in lower case; CJK letters one by one.

    The last answer is kept, because several rules look at the same text one after the other.
    """
    parts, offset = [], 0
    for piece in _pieces(text):
        lower = piece.lower()
        hashes, starts, ends, alone, alphabetic = _units(lower)
        parts.append(Units(hashes, starts + offset, ends + offset, alone, alphabetic))
        offset += len(lower)
    return parts[0] if len(parts) == 1 else Units(*map(np.concatenate, zip(*parts, strict=True)))


def stretches(text: str) -> Iterator[str]:
    """A text in stretches of `LONG_TEXT` characters; they overlap, so that hardly a run of units is cut."""
    yield text[: LONG_TEXT + _OVERLAP]
    for start in range(LONG_TEXT, len(text) - _OVERLAP, LONG_TEXT):
        yield text[start : start + LONG_TEXT + _OVERLAP]


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of about `_PIECE` characters (one, if it is empty), cut where no unit is."""
    start = 0
    while len(text) - start > 2 * _PIECE and (cut := _BOUNDARY.search(text, start + _PIECE)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def _units(lower: str) -> Units:
    codes = np.frombuffer(lower.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[np.minimum(codes, _TABLE)]
    if len(codes) and codes.max() >= _TABLE:
        first, last = _ALONE_BLOCKS[-1]
        kinds[(codes >= first) & (codes < last)] = _ALONE
    inside = np.zeros(len(codes) + 2, np.int8)
    inside[1:-1] = (kinds == _DIGIT) | (kinds == _LETTER)
    words, singles = np.flatnonzero(np.diff(inside)).reshape(-1, 2), np.flatnonzero(kinds == _ALONE)
    starts, ends = np.append(words[:, 0], singles), np.append(words[:, 1], singles + 1)
    if len(words) and len(singles):
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
    digits = np.searchsorted(starts, np.flatnonzero(kinds == _DIGIT), side="right") - 1
    alphabetic = np.bincount(digits, minlength=len(starts)) < ends - starts
    hashes = spans(prefix_sums(codes.astype(np.uint64)), starts, ends)
    return Units(hashes, starts, ends, kinds[starts] == _ALONE, alphabetic)


def ngrams(hashes: np.ndarray, n: int) -> np.ndarray:
    """Hashes of all runs of `n` units, (U - n + 1,) uint64; of fewer than `n` units none."""
    if len(hashes) < n:
        return np.empty(0, np.uint64)
    sums = prefix_sums(hashes)
    return mix((sums[n:] - sums[:-n]) * _powers(_INVERSE, len(sums) - n) + np.uint64(n))


def prefix_sums(values: np.ndarray) -> np.ndarray:
    """sum_{i < k} values[i] * base^i mod 2^64 for k = 0 ... N: (N + 1,) uint64, for `spans`."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(_BASE, len(values)), out=sums[1:])
    return sums


def spans(sums: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Hash of every run [start, end), wherever it stands (also in `ngrams`): a polynomial, mixed."""
    lengths = (ends - starts).astype(np.uint64)
    return mix((sums[ends] - sums[starts]) * _powers(_INVERSE, len(sums))[starts] + lengths)


def mix(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit values whose result looks random: the finaliser of SplitMix64 (Steele, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _kinds() -> np.ndarray:
    """Kind of every code point below `_TABLE`, and `_OTHER` at `_TABLE` itself."""
    by_category = {"L": _LETTER, "M": _LETTER, "N": _DIGIT}
    kinds = np.array(
        [by_category.get(unicodedata.category(chr(code))[0], _OTHER) for code in range(_TABLE)] + [_OTHER],
        np.uint8,
    )
    for first, last in _ALONE_BLOCKS:
        part = kinds[first : min(last, _TABLE)]
        part[part != _OTHER] = _ALONE
    return kinds


def _powers(base: int, count: int) -> np.ndarray:
    """base^0 ... base^(count - 1) mod 2^64, (count,) uint64."""
    return _power_table(base, max(1 << 18, 1 << count.bit_length()))[:count]


@cache
def _power_table(base: int, size: int) -> np.ndarray:
    powers = np.full(size, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)
