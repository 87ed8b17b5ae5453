"""Amounts as people write them: 3B parameters, 1T tokens, 2 weeks, $3,360. No torch."""

from __future__ import annotations

import math
import re

from growlm.errors import RecipeError

_SIZES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_TIMES = {
    "": 86400.0, "s": 1.0, "min": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0,
    "day": 86400.0, "days": 86400.0, "w": 604800.0, "week": 604800.0, "weeks": 604800.0,
}  # fmt: skip
_NUMBER = r"([0-9][0-9_,]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)"


def parse_amount(text: str, where: str, example: str = "3B") -> float:
    """A count or money: 3B, 1T, 2.5e11, 3_000_000, $3,360, $100k. Above 0. Raises RecipeError."""
    found = re.fullmatch(rf"\$?\s*{_NUMBER}\s*([kKmMbBgGtT]?)", text.strip())
    return _positive(found, _SIZES, text, where, example)


def parse_seconds(text: str, where: str = "--days") -> float:
    """A time, in days unless it says otherwise: 14, 14 days, 2 weeks, 36h. Raises RecipeError."""
    found = re.fullmatch(rf"{_NUMBER}\s*([a-zA-Z]*)", text.strip())
    return _positive(found, _TIMES, text, where, "14, 2 weeks or 36h")


def _positive(
    found: re.Match[str] | None, units: dict[str, float], text: str, where: str, example: str
) -> float:
    if found is None or found[2].lower() not in units:
        raise RecipeError(f"{text!r} is not an amount above 0", where=where, fix=f"write e.g. {example}")
    value = float(found[1].replace(",", "").replace("_", "")) * units[found[2].lower()]
    if not (value > 0 and math.isfinite(value)):
        raise RecipeError(f"{text!r} is not an amount above 0", where=where, fix=f"write e.g. {example}")
    return value
