"""Time and cost as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from growlm.plan.cost import Cost


def cost_text(cost: Cost, currency: str) -> str:
    """`21.50 days, 99,058 GPU-hours, 99,751 USD`."""
    time, hours, money = cost_cells(cost)
    return f"{time}, {hours} GPU-hours" + (f", {money} {currency}" if cost.money is not None else "")


def cost_cells(cost: Cost) -> list[str]:
    """Its time, GPU-hours and money."""
    return [span(cost.seconds), amount(cost.gpu_hours), "-" if cost.money is None else amount(cost.money)]


def span(seconds: float) -> str:
    """21.50 days, 3.27 h, 12.10 min, 45 s, 3.2 ms."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"


def amount(number: float) -> str:
    """99,058 or 0.0151."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
