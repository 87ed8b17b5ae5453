"""Intervals against what they are known to be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from growlm.evaluate.intervals import interval, interval_of_average, wilson


@pytest.mark.parametrize(("right", "items"), [(0, 100), (100, 100), (37, 148), (1, 3)])
def test_wilson_is_scipys(right: int, items: int) -> None:
    known = stats.binomtest(right, items).proportion_ci(method="wilson")
    assert wilson(right, items) == pytest.approx((known.low, known.high))


def test_all_wrong_and_all_right_have_an_interval() -> None:
    assert interval([0.0] * 100) == pytest.approx((0, 3.8415 / 103.8415), abs=1e-4)
    assert interval([1.0] * 100) == pytest.approx((100 / 103.8415, 1), abs=1e-4)
    assert interval_of_average([[0.0] * 30, [0.0] * 70]) == interval([0.0] * 100)
    assert interval_of_average([[0.0] * 100, [1.0] * 100]) == pytest.approx((0.4815, 0.5185), abs=1e-3)


def test_shares_are_binomial_and_other_values_scipys_bootstrap() -> None:
    low, high = interval([1.0] * 30 + [0.0] * 70)
    assert (low, high) == (stats.binom.ppf(0.025, 100, 0.3) / 100, stats.binom.ppf(0.975, 100, 0.3) / 100)
    values = np.random.default_rng(0).uniform(size=200)
    known = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1)
    close = (known.confidence_interval.low, known.confidence_interval.high)
    assert interval(list(values)) == pytest.approx(close, abs=0.003)
    assert interval(list(values)) == interval(list(values))


def test_an_average_of_tasks_is_narrower_than_the_tasks() -> None:
    task = [1.0] * 50 + [0.0] * 50
    low, high = interval_of_average([task] * 4)
    assert high - low == pytest.approx(2 * 1.96 * 0.05 / 2, rel=0.1)
    assert low < 0.5 < high
