"""Charts as SVG text: lines, points, bands, filled areas and steps on linear or logarithmic axes.

One file without fonts, scripts or ids, so that several fit into one page. The colours can be told apart by
the colour-blind (Okabe and Ito, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from growlm.plan.ticks import linear_ticks, log_ticks, number

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4B8A", "#4D4D4D")
_INK, _SOFT, _GRID = "#222222", "#666666", "#E4E4E4"
_SIZE, _LEGEND = 13, 24

Values = Sequence[float]
_Place = Callable[[float], float | None]


@dataclass(frozen=True)
class _Mark:
    """One thing drawn: `kind` is line, points, area or text; `low` is the lower edge of an area."""

    kind: str
    xs: Values
    ys: Values
    color: str
    low: Values | None = None
    label: str = ""
    dashed: bool = False
    thickness: float = 2.0
    opacity: float = 1.0
    text: str = ""
    anchor: str = "start"


@dataclass
class Chart:
    """A chart of `width` x `height` pixels. Add marks, then `svg()`.

    Marks are drawn in the order they are added; each with a label is in the legend, and each that is given
    no colour gets the next one. Points that are not finite, or not positive on a logarithmic axis, are gaps.
    `x_range` and `y_range` fix an axis, `x_format` and `y_format` write its numbers, `x_ticks` places them.
    """

    title: str = ""
    x_label: str = ""
    y_label: str = ""
    width: int = 760
    height: int = 440
    x_log: bool = False
    y_log: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_format: Callable[[float], str] = number
    y_format: Callable[[float], str] = number
    x_ticks: Sequence[float] | None = None
    marks: list[_Mark] = field(default_factory=list, repr=False)

    def line(
        self,
        xs: Values,
        ys: Values,
        label: str = "",
        *,
        color: str = "",
        dashed: bool = False,
        thickness: float = 2.0,
    ) -> None:
        """Points joined by a line."""
        self.marks.append(
            _Mark("line", xs, ys, self._color(color), label=label, dashed=dashed, thickness=thickness)
        )

    def points(
        self, xs: Values, ys: Values, label: str = "", *, color: str = "", radius: float = 4.0
    ) -> None:
        """Filled circles."""
        self.marks.append(_Mark("points", xs, ys, self._color(color), label=label, thickness=radius))

    def band(
        self,
        xs: Values,
        low: Values,
        high: Values,
        label: str = "",
        *,
        color: str = "",
        opacity: float = 0.22,
    ) -> None:
        """The area between two lines: an interval."""
        self.marks.append(_Mark("area", xs, high, self._color(color), low=low, label=label, opacity=opacity))

    def area(
        self, xs: Values, ys: Values, label: str = "", *, color: str = "", opacity: float = 0.35
    ) -> None:
        """The area under a line, down to 0 (to the bottom on a logarithmic axis)."""
        base = [math.ulp(0.0) if self.y_log else 0.0] * len(xs)
        self.marks.append(_Mark("area", xs, ys, self._color(color), low=base, label=label, opacity=opacity))

    def steps(
        self, edges: Values, heights: Values, label: str = "", *, color: str = "", opacity: float = 0.35
    ) -> None:
        """A staircase with its area: `heights[i]` between `edges[i]` and `edges[i + 1]`."""
        xs = [x for pair in pairwise(edges) for x in pair]
        ys = [y for height in heights for y in (height, height)]
        color = self._color(color)
        self.area(xs, ys, label, color=color, opacity=opacity)
        self.line(xs, ys, color=color)

    def text(self, x: float, y: float, text: str, *, color: str = _INK, anchor: str = "start") -> None:
        """Words at a point; `anchor` is start, middle or end."""
        self.marks.append(_Mark("text", [x], [y], color, text=text, anchor=anchor))

    def svg(self) -> str:
        """The whole chart as an SVG document."""
        return _document(self.width, self.height, self._body())

    def _color(self, color: str) -> str:
        if color:
            return color
        return COLORS[len(dict.fromkeys(m.color for m in self.marks if m.color in COLORS)) % len(COLORS)]

    def _body(self) -> str:
        legend = [m for m in self.marks if m.label]
        beside = 52 + max((_text_width(m.label) for m in legend), default=-34)
        (x0, x1), (y0, y1) = self._range(x=True), self._range(x=False)
        xs = self.x_ticks or (log_ticks if self.x_log else linear_ticks)(x0, x1, max(3, self.width // 120))
        ys = (log_ticks if self.y_log else linear_ticks)(y0, y1, max(3, self.height // 70))
        left = 34 + max((_text_width(self.y_format(y)) for y in ys), default=0)
        top, bottom = (44 if self.title else 18), 56 if self.x_label else 34
        wide, high = max(40.0, self.width - left - beside), self.height - top - bottom
        across, up = _scale(x0, x1, 0, wide, self.x_log), _scale(y0, y1, high, 0, self.y_log)
        frame = [
            f'<text x="{left:.0f}" y="24" font-size="15" font-weight="600">{escape(self.title)}</text>',
            f'<text x="{left + wide / 2:.0f}" y="{self.height - 12}" text-anchor="middle" fill="{_SOFT}">'
            f"{escape(self.x_label)}</text>",
            f'<text transform="translate(16 {top + high / 2:.0f}) rotate(-90)" text-anchor="middle" '
            f'fill="{_SOFT}">{escape(self.y_label)}</text>',
        ]
        for x in xs:
            at = left + (across(x) or 0.0)
            frame.append(
                f'<path d="M{at:.1f} {top}V{top + high}" stroke="{_GRID}"/><text x="{at:.1f}" '
                f'y="{top + high + 18}" text-anchor="middle">{escape(self.x_format(x))}</text>'
            )
        for y in ys:
            at = top + (up(y) or 0.0)
            frame.append(
                f'<path d="M{left:.1f} {at:.1f}h{wide:.1f}" stroke="{_GRID}"/><text x="{left - 8:.1f}" '
                f'y="{at + 4:.1f}" text-anchor="end">{escape(self.y_format(y))}</text>'
            )
        drawn = "\n".join(_draw(m, across, up) for m in self.marks)
        inner = (
            f'<svg x="{left:.1f}" y="{top}" width="{wide:.1f}" height="{high}" overflow="hidden">\n'
            f"{drawn}\n</svg>"
        )
        border = (
            f'<path d="M{left:.1f} {top}V{top + high}h{wide:.1f}" stroke="{_SOFT}" fill="none" '
            'stroke-width="1.2"/>'
        )
        entries = [_entry(m, left + wide + 16, top + 10 + i * _LEGEND) for i, m in enumerate(legend)]
        return "\n".join([*frame, inner, border, *entries])

    def _range(self, *, x: bool) -> tuple[float, float]:
        """The ends of an axis: as given, or around all marks, with some room; from 0 where an area stands."""
        given, log = (self.x_range, self.x_log) if x else (self.y_range, self.y_log)
        if given:
            return given
        lists = [v for m in self.marks for v in ([m.xs] if x else [m.ys, m.low or []])]
        floor = math.ulp(0.0) if log else -math.inf
        values = [v for values in lists for v in values if math.isfinite(v) and v > floor]
        if not values:
            return (1.0, 10.0) if log else (0.0, 1.0)
        low, high = min(values), max(values)
        if log:
            room = (high / low) ** (0.02 if x else 0.05) if high > low else 2.0
            return low / room, high * room
        room = (0.0 if x else 0.05) * (high - low) or (0.0 if x and high > low else 0.5 * abs(high) or 1.0)
        return (0.0 if low == 0 else low - room), high + room


def grid(charts: Sequence[Chart], columns: int = 2, title: str = "") -> str:
    """Several charts of one size as one SVG document, row by row."""
    width, height = max(c.width for c in charts), max(c.height for c in charts)
    rows, head = -(-len(charts) // columns), 40 if title else 0
    columns = min(columns, len(charts))
    parts = [f'<text x="20" y="28" font-size="17" font-weight="600">{escape(title)}</text>'] if title else []
    parts += [
        f'<g transform="translate({i % columns * width} {head + i // columns * height})">\n{c._body()}\n</g>'
        for i, c in enumerate(charts)
    ]
    return _document(columns * width, head + rows * height, "\n".join(parts))


def _document(width: float, height: float, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" style="max-width: 100%; height: auto" '
        f"font-family=\"system-ui, -apple-system, 'Segoe UI', "
        f'\'Noto Sans\', sans-serif" font-size="{_SIZE}" fill="{_INK}">\n'
        f'<rect width="100%" height="100%" fill="#FFFFFF"/>\n{body}\n</svg>\n'
    )


def _scale(low: float, high: float, start: float, stop: float, log: bool) -> _Place:
    """From values to pixels; None where there is no place. What lies far outside is kept within reach."""

    def place(value: float) -> float | None:
        if not math.isfinite(value) or (log and value <= 0):
            return None
        ends = (math.log(low), math.log(high), math.log(value)) if log else (low, high, value)
        share = (ends[2] - ends[0]) / ((ends[1] - ends[0]) or 1.0)
        return start + (stop - start) * min(max(share, -1.0), 2.0)

    return place


def _draw(m: _Mark, across: _Place, up: _Place) -> str:
    """One mark, in pixels from the plot's upper left corner."""
    places = [(across(x), up(y)) for x, y in zip(m.xs, m.ys, strict=True)]
    if m.kind == "text":
        return "".join(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{m.anchor}" fill="{m.color}">{escape(m.text)}</text>'
            for x, y in places
            if x is not None and y is not None
        )
    if m.kind == "points":
        return "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{m.thickness:g}" fill="{m.color}"/>'
            for x, y in places
            if x is not None and y is not None
        )
    if m.low is not None:
        edge = [(across(x), up(y)) for x, y in zip(m.xs, m.low, strict=True)]
        whole = [(a, b) for a, b in zip(places, edge, strict=True) if None not in (*a, *b)]
        outline = [a for a, _ in whole] + [b for _, b in reversed(whole)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in outline) + "Z" if outline else ""
        return f'<path d="{path}" fill="{m.color}" fill-opacity="{m.opacity:g}"/>'
    dash = ' stroke-dasharray="6 4"' if m.dashed else ""
    path, pen = "", "M"
    for x, y in places:
        path, pen = (path, "M") if x is None or y is None else (path + f"{pen}{x:.1f} {y:.1f}", "L")
    return (
        f'<path d="{path}" fill="none" stroke="{m.color}" stroke-width="{m.thickness:g}" '
        f'stroke-linejoin="round"{dash}/>'
    )


def _entry(m: _Mark, x: float, y: float) -> str:
    """One line of the legend."""
    if m.kind == "points":
        sign = f'<circle cx="{x + 9:.1f}" cy="{y}" r="{m.thickness:g}" fill="{m.color}"/>'
    elif m.low is not None:
        sign = (
            f'<rect x="{x:.1f}" y="{y - 6}" width="18" height="12" fill="{m.color}" '
            f'fill-opacity="{m.opacity:g}" stroke="{m.color}"/>'
        )
    else:
        dash = ' stroke-dasharray="6 4"' if m.dashed else ""
        sign = f'<path d="M{x:.1f} {y}h18" stroke="{m.color}" stroke-width="{m.thickness:g}"{dash}/>'
    return f'{sign}<text x="{x + 24:.1f}" y="{y + 4}">{escape(m.label)}</text>'


def _text_width(text: str) -> float:
    """About the width of a text in pixels."""
    return sum(_SIZE * (1.0 if ord(c) > 0x2E7F else 0.56) for c in text)
