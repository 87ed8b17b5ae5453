"""MinHash band keys: documents that share one are near duplicates, almost surely."""

from __future__ import annotations

import numpy as np
import xxhash

from growlm.data.cleaning.units import mix, ngrams, stretches, units

BANDS, ROWS, SHINGLE = 14, 8, 5
"""FineWeb's (2406.17557, 2.3): 14 bands of 8 hash functions over 5-grams of words."""
_BLOCK = 1 << 11  # shingles hashed at a time: all functions' values of them fit into the second cache
_SEEDS = mix(np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64)).astype(np.uint32).reshape(2, -1, 1)
_FACTORS, _OFFSETS = _SEEDS[0] | np.uint32(1), _SEEDS[1]


def band_keys(text: str) -> np.ndarray:
    """Keys of a text, (BANDS,) uint64; key i is only ever compared with the key i of another text.

    Texts whose sets of shingles have Jaccard similarity s share at least one key with probability
    `1 - (1 - s**ROWS) ** BANDS` (`collision_probability`). A shingle is `SHINGLE` units in a row: words, of
    Chinese and Japanese characters. Case, white space and punctuation do not count. A text of fewer
    units is one shingle, and one without any unit is like its exact copies only.
    """
    minima = np.full(BANDS * ROWS, np.iinfo(np.uint32).max, np.uint32)
    for stretch in stretches(text):
        _lower(minima, _shingles(stretch))
    rows = minima.astype(np.uint64).reshape(BANDS, ROWS)
    keys = np.arange(BANDS, dtype=np.uint64)
    for row in range(ROWS):
        keys = mix(keys ^ rows[:, row])
    return keys


def collision_probability(similarity: float) -> float:
    """Chance that texts of this Jaccard similarity share a key (Leskovec, Rajaraman, Ullman, 3.4.2)."""
    return 1 - (1 - similarity**ROWS) ** BANDS


def _shingles(text: str) -> np.ndarray:
    """Hashes of a text's shingles, (S,) uint32, S > 0."""
    hashes = units(text).hashes
    if len(hashes):
        shingles = ngrams(hashes, min(SHINGLE, len(hashes)))
    else:
        shingles = np.array([xxhash.xxh3_64_intdigest(text.encode())], np.uint64)
    return (shingles >> np.uint64(32)).astype(np.uint32)


def _lower(minima: np.ndarray, shingles: np.ndarray) -> None:
    """Lower the smallest value of each hash function a*x + b mod 2^32, (BANDS * ROWS,) uint32, in place."""
    for start in range(0, len(shingles), _BLOCK):
        values = _FACTORS * shingles[start : start + _BLOCK]
        values += _OFFSETS
        np.minimum(minima, values.min(axis=1), out=minima)
