"""Seeded shuffles without stored indices: pure functions of a key, the same on every machine for ever."""

from __future__ import annotations

import math

import numpy as np

_ROUND_KEYS = [np.uint64(0x9FB21C651E98DF25 * (2 * i + 1) % 2**64) for i in range(6)]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """splitmix64: (n,) uint64 to (n,) well-mixed uint64, elementwise and one to one."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key_of(*parts: int) -> np.ndarray:
    """One 64-bit key from several integers, in order, as (1,) uint64."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mix(key ^ mix(np.array([part % 2**64], np.uint64)))
    return key


def shuffled(count: int, key: np.ndarray) -> np.ndarray:
    """A permutation of range(count) as (count,) int64."""
    return np.argsort(mix(np.arange(count, dtype=np.uint64) ^ key), kind="stable")


def permute(index: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """Where each index of range(count) goes in the permutation of its key; elementwise, any order.

    A Feistel network on pairs (a, b) with sides of about sqrt(count); results outside the range are
    sent through again, which stays inside a cycle and so remains a permutation.

    Args:
        index: (...) integers below `count`.
        keys: (...) uint64, one per index; equal keys are one permutation.
    """
    side = math.isqrt(count - 1) + 1
    result = np.array(index, np.uint64)
    keys = np.broadcast_to(keys, result.shape)
    todo = np.ones(result.shape, bool)
    while todo.any():
        result[todo] = _feistel(result[todo], np.uint64(side), keys[todo])
        todo = result >= count
    return result.astype(np.int64)


def _feistel(value: np.ndarray, side: np.uint64, keys: np.ndarray) -> np.ndarray:
    a, b = value // side, value % side
    for round_key in _ROUND_KEYS:
        a, b = b, (a + mix(keys ^ round_key ^ b) % side) % side
    return a * side + b
