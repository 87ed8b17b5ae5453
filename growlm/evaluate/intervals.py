"""95 % intervals of scores: the percentile bootstrap, and what it cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

RESAMPLES = 10_000
_SEED = 0
LEVEL = 0.95
_CELLS = 1 << 24
"""Draws held in memory at a time."""

Floats = NDArray[np.float64]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Of the mean of at least one value from 0 to 1: percentiles of the means of resamples.

    Where all values are 0, or all are 1, every resample is the same and the bootstrap knows nothing: the
    interval is Wilson's. (Of `n` items all wrong: 0 to 3.84 / (n + 3.84).)
    """
    array = np.asarray(values, np.float64)
    if np.all(array == array[0]) and array[0] in (0.0, 1.0):
        return wilson(int(array.sum()), len(array))
    return _percentiles(_means(array, np.random.Generator(np.random.Philox(_SEED))))


def interval_of_average(tasks: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Of the average of several tasks' means, each with its own items: every task is resampled apart.

    Where all items of all tasks are wrong, or right, the interval is Wilson's of all of them; where those
    of each task are alike but not those of all, it is the average of the tasks' Wilson bounds.
    """
    everything = [value for values in tasks for value in values]
    if len(set(everything)) == 1:
        return interval(everything)
    generator = np.random.Generator(np.random.Philox(_SEED))
    means = np.mean([_means(np.asarray(values, np.float64), generator) for values in tasks], axis=0)
    low, high = _percentiles(means)
    if low < high:
        return low, high
    bounds = [interval(values) for values in tasks]
    return sum(low for low, _ in bounds) / len(bounds), sum(high for _, high in bounds) / len(bounds)


def wilson(right: int, items: int) -> tuple[float, float]:
    """Wilson's score interval of a share (J. Am. Stat. Assoc. 22, 209, 1927)."""
    z = float(ndtri((1 + LEVEL) / 2))
    share, weight = right / items, z * z / items
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * sqrt(share * (1 - share) / items + weight / items / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def _percentiles(means: Floats) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _means(values: Floats, generator: np.random.Generator) -> Floats:
    """The mean of each resample; of zeros and ones their number is binomial, which is the same."""
    items = len(values)
    if np.all((values == 0) | (values == 1)):
        return generator.binomial(items, values.mean(), RESAMPLES) / items
    rows = max(1, _CELLS // items)
    parts = [
        values[generator.integers(0, items, (min(rows, RESAMPLES - start), items))].mean(axis=1)
        for start in range(0, RESAMPLES, rows)
    ]
    return np.concatenate(parts)
