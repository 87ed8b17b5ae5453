"""How much of a text repeats itself (Gopher, 2112.11446, table A1), each as a share of its characters."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from growlm.data.cleaning.units import ngrams


def repeated_lines(lines: Iterable[str]) -> float:
    """Share of the characters that are in lines seen before."""
    seen: set[str] = set()
    repeated = total = 0
    for line in lines:
        total += len(line)
        if line in seen:
            repeated += len(line)
        seen.add(line)
    return repeated / total if total else 0.0


def top_share(hashes: np.ndarray, lengths: np.ndarray, n: int) -> float:
    """Share of the units' characters in the commonest run of `n` units; 0 if none occurs twice.

    Args:
        hashes: (U,) uint64, the units.
        lengths: (U,) their characters.
    """
    runs, places = _sorted(ngrams(hashes, n))
    if not len(runs):
        return 0.0
    starts = np.flatnonzero(np.append(True, runs[1:] != runs[:-1]))
    counts = np.diff(np.append(starts, len(runs)))
    if counts.max() < 2:
        return 0.0
    first = places[starts[counts.argmax()]]
    return float(counts.max() * lengths[first : first + n].sum() / lengths.sum())


def duplicate_share(hashes: np.ndarray, lengths: np.ndarray, n: int) -> float:
    """Share of the units' characters that are in a run of `n` units seen before; each counts once."""
    runs, places = _sorted(ngrams(hashes, n))
    again = places[1:][runs[1:] == runs[:-1]]
    if not len(again):
        return 0.0
    edges = np.zeros(len(hashes) + 1, np.int64)
    edges[again] += 1
    edges[again + n] -= 1
    return float(lengths[np.cumsum(edges[:-1]) > 0].sum() / lengths.sum())


def _sorted(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes in order, without the lowest bits, and the place of each; equal ones by their place.

    The place takes the lowest bits, so that a plain sort does it: five times as fast as an argsort.
    """
    bits = np.uint64(len(hashes).bit_length())
    ordered = np.sort((hashes >> bits << bits) | np.arange(len(hashes), dtype=np.uint64))
    return ordered >> bits, (ordered & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
