"""A growth schedule as a picture: size over tokens, with the cost as the area under it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from growlm.plan.growth.theory import Leg, cost_of_legs, shape_saving
from growlm.plan.svg import COLORS, Chart, grid
from growlm.plan.ticks import count

SHAPES = {"sublinear": 0.5, "linear": 1.0, "superlinear": 2.0}
"""Size goes as tokens to this power (2309.03852, figure 1: the area under it is the cost)."""


def growth_picture(title: str, legs: Sequence[Leg], costs: Sequence[str], alone: Leg | None = None) -> str:
    """SVG: the schedule, with each stage's cost in words, beside the three shapes of growth.

    `alone`: one size on the same budget, for comparison.
    """
    return grid([_schedule(legs, costs, alone), _shapes(legs)], 2, title)


def _schedule(legs: Sequence[Leg], costs: Sequence[str], alone: Leg | None) -> Chart:
    edges = [0.0, *accumulate(leg.tokens for leg in legs)]
    top = max([leg.params for leg in legs] + ([alone.params] if alone else []))
    end = max([edges[-1]] + ([alone.tokens] if alone else []))
    chart = Chart(
        title="Size over tokens: the area is the FLOPs",
        x_label="tokens trained",
        y_label="parameters",
        x_format=count,
        y_format=count,
        width=720,
        x_range=(0, 1.02 * end),
        y_range=(0, 1.15 * top),
    )
    for k, (leg, cost) in enumerate(zip(legs, costs, strict=True)):
        color = COLORS[k % len(COLORS)]
        label = f"{count(leg.params)} on {count(leg.tokens)}: {cost}"
        chart.steps(edges[k : k + 2], [leg.params], label, color=color)
    if alone is not None:
        label = f"alone: {count(alone.params)} on {count(alone.tokens)}"
        outline = [0, 0, alone.tokens, alone.tokens], [0, alone.params, alone.params, 0]
        chart.line(*outline, label, color=COLORS[-1], dashed=True)
    return chart


def _shapes(legs: Sequence[Leg]) -> Chart:
    """Size over tokens, both as shares of their last value."""
    chart = Chart(
        title="Shapes of growth and what they save at equal tokens",
        x_label="share of tokens",
        y_label="share of the last size",
        width=720,
        x_range=(0, 1),
        y_range=(0, 1.08),
    )
    xs = [k / 60 for k in range(61)]
    colors = COLORS[3], COLORS[1], COLORS[2]
    for color, (name, power) in zip(colors, SHAPES.items(), strict=True):
        chart.line(
            xs,
            [x**power for x in xs],
            f"{name} (power {power:g}): saves {shape_saving(power):.0%}",
            color=color,
        )
    total = sum(leg.tokens for leg in legs)
    edges = [0.0, *accumulate(leg.tokens / total for leg in legs)]
    saved = 1 - cost_of_legs([Leg(leg.params, leg.tokens) for leg in legs]) / (6 * legs[-1].params * total)
    heights = [leg.params / legs[-1].params for leg in legs]
    chart.steps(edges, heights, f"this schedule: saves {saved:.0%}", color=COLORS[0], opacity=0.18)
    return chart
