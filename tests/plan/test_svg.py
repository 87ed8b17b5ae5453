"""Charts: well-formed SVG, ticks that are round numbers, points where the axis says."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from growlm.plan.svg import Chart, grid
from growlm.plan.ticks import count, linear_ticks, log_ticks, number


def test_ticks_are_round_and_inside() -> None:
    assert linear_ticks(0, 1, 6) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert linear_ticks(1.97, 2.13, 5) == [2, 2.05, 2.1]
    assert log_ticks(64, 1024) == [100, 200, 500, 1000]
    assert log_ticks(1e6, 1e12) == pytest.approx([10.0**p for p in range(6, 13)])
    assert log_ticks(1, 1.3) == linear_ticks(1, 1.3)


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (1e-4, "10⁻⁴"), (2e-4, "2·10⁻⁴"), (-3, "−3"), (1e21, "10²¹")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_counts() -> None:
    assert [count(n) for n in (6.58e9, 101.7e9, 15e12, 350e6, 999.9e6)] == [
        "6.58B",
        "102B",
        "15T",
        "350M",
        "1B",
    ]


def test_a_point_lies_where_its_axes_say() -> None:
    chart = Chart(x_log=True, x_range=(1, 100), y_range=(0, 4))
    chart.points([10], [1])
    text = chart.svg()
    wide, high = (float(v) for v in re.findall(r'<svg x=.* width="([\d.]+)" height="(\d+)"', text)[0])
    x, y = (float(v) for v in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)[0])
    assert (x, y) == pytest.approx((wide / 2, high * 3 / 4), abs=0.1)


def test_words_are_escaped_gaps_are_left_out_and_many_charts_are_one_document() -> None:
    chart = Chart(title="a < b & c", y_log=True)
    chart.line([1, 2, 3], [1, math.nan, 0.0], label="<x>")
    chart.band([1, 2], [1, 1], [2, math.inf])
    chart.steps([0, 1, 2], [3, 4], "stages")
    text = grid([chart, Chart()], 2, "two")
    assert ET.fromstring(text).tag.endswith("svg")
    assert "nan" not in text
    assert "inf" not in text
