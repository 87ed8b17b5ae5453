"""Curves are thinned without losing their extremes, averaged without NaN, and placed on any axis."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from growlm.report.series import POINTS, axes_of, number, or_none, smooth, thin


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=200), st.integers(4, 50))
def test_thin_keeps_the_extremes_and_the_order(values: list[float], points: int) -> None:
    steps, kept = thin(np.arange(1, len(values) + 1), np.array(values), points)
    finite = [v for v in values if math.isfinite(v)]
    assert len(kept) <= max(points, 0)
    assert steps == sorted(set(steps))
    if finite:
        assert (min(kept), max(kept)) == pytest.approx((min(finite), max(finite)), rel=1e-5)
    if len(finite) <= points:
        assert kept == pytest.approx(finite, rel=1e-5)


def test_a_million_steps_become_a_page() -> None:
    n = 1_000_000
    values = np.sin(np.arange(n) / 1e5)
    values[777_777] = 40.0
    steps, kept = thin(np.arange(1, n + 1), values)
    assert len(kept) <= POINTS
    assert steps[kept.index(40.0)] == 777_778


def test_smooth_is_the_mean_of_what_is_there() -> None:
    values = np.array([1.0, 2.0, math.nan, 4.0, 5.0])
    assert smooth(values, 1) == pytest.approx([1.5, 1.5, 3.0, 4.5, 4.5])
    assert smooth(values, 9) == pytest.approx([3.0] * 5)
    assert np.isnan(smooth(np.array([math.nan]), 3)).all()
    assert len(smooth(np.array([]))) == 0


def test_axes_are_exact_at_every_stage_end_and_start_at_zero() -> None:
    steps = [
        {"step": n, "stage": int(n > 3000), "tokens": n * 10 if n <= 3000 else 30_000 + (n - 3000) * 70}
        for n in range(1, 5001)
    ]
    axes = axes_of(steps, points=20)
    assert axes["step"] is not None
    assert axes["tokens"] is not None
    assert axes["cost"] is None
    assert len(axes["step"]) <= 24
    at = [0, 1, 1234, 3000, 3001, 4567, 5000]
    truth = [0, *(steps[n - 1]["tokens"] for n in at[1:])]
    assert np.interp(at, axes["step"], axes["tokens"]) == pytest.approx(truth)


def test_untrusted_numbers() -> None:
    assert or_none(10**400) is None
    assert or_none(True) is None
    assert or_none("1") is None
    assert or_none(float("inf")) is None
    assert number(3) == 3.0
