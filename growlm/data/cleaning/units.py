"""A text as units (words, and of Chinese, Japanese and Korean characters), each as a 64-bit hash.

Case, white space and punctuation do not count, so that two texts with the same units say the same.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np

_LETTER, _ALONE = 1, 2
_ALONE_BLOCKS = (
    (0x3041, 0x3100),  # kana
    (0x3105, 0x3130),  # bopomofo
    (0x31A0, 0x3200),
    (0x3400, 0x4DC0),  # Han
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x40000),
)
"""Blocks whose letters are units of their own: scripts written without spaces between words."""
_TABLE = 0x20000
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


def units(text: str) -> Units:
    """The units of a text: runs of letters, digits and marks in lower case; CJK letters one by one."""
    codes = np.frombuffer(text.lower().encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[np.minimum(codes, _TABLE)]
    kinds[codes >= _TABLE] = 0
    kinds[(codes >= _ALONE_BLOCKS[-1][0]) & (codes < _ALONE_BLOCKS[-1][1])] = _ALONE
    alone = kinds == _ALONE
    inside = np.zeros(len(codes) + 1, bool)
    inside[:-1] = kinds == _LETTER
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    if inside[0]:
        edges = np.concatenate(([0], edges))
    words, singles = edges.reshape(-1, 2), np.flatnonzero(alone)
    starts = np.concatenate((words[:, 0], singles))
    ends = np.concatenate((words[:, 1], singles + 1))
    if len(words) and len(singles):
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
    sums = prefix_sums(mix(codes.astype(np.uint64)))
    return Units(spans(sums, starts, ends), starts, ends, alone[starts])


def ngrams(hashes: np.ndarray, n: int) -> np.ndarray:
    """Hashes of all runs of `n` units, (U - n + 1,) uint64; of fewer than `n` units none."""
    starts = np.arange(len(hashes) - n + 1)
    return spans(prefix_sums(hashes), starts, starts + n)


def prefix_sums(values: np.ndarray) -> np.ndarray:
    """sum_{i < k} values[i] * base^i mod 2^64 for k = 0 ... N: (N + 1,) uint64, for `spans`."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(_BASE, len(values)), out=sums[1:])
    return sums


def spans(sums: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Hash of every run [start, end), the same wherever the run stands: a polynomial, mixed."""
    lengths = (ends - starts).astype(np.uint64)
    return mix((sums[ends] - sums[starts]) * _powers(_INVERSE, len(sums))[starts] + lengths)


def mix(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit values whose result looks random: the finaliser of SplitMix64 (Steele, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _kinds() -> np.ndarray:
    """Kind of every code point below `_TABLE`, and 0 at `_TABLE` itself."""
    kinds = np.zeros(_TABLE + 1, np.uint8)
    letters = [unicodedata.category(chr(code))[0] in "LNM" for code in range(_TABLE)]
    kinds[:-1][letters] = _LETTER
    for first, last in _ALONE_BLOCKS:
        part = kinds[first : min(last, _TABLE)]
        part[part == _LETTER] = _ALONE
    return kinds


def _powers(base: int, count: int) -> np.ndarray:
    """base^0 ... base^(count - 1) mod 2^64, (count,) uint64."""
    size = max(1 << 16, 1 << count.bit_length())
    return _power_table(base, size)[:count]


@cache
def _power_table(base: int, size: int) -> np.ndarray:
    powers = np.full(size, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)
