"""Where an axis has its ticks, and how numbers on it are written."""

from __future__ import annotations

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def linear_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round numbers from `low` to `high`: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(k * step, digits) for k in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Powers of ten between two positive numbers; over few decades 2 and 5 times them, over less than half a
    decade round numbers; over many, every second or third power."""
    decades = math.log10(high / low) if high > low else 0.0
    if decades < 0.5:
        return [t for t in linear_ticks(low, high, count) if t > 0]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, math.ceil(decades / (count + 2)))
    steps = (
        (1, 1.5, 2, 3, 4, 5, 7)
        if decades < 1
        else (1, 2, 5)
        if decades < 2
        else (1, 3)
        if decades < 3
        else (1,)
    )
    ticks = [m * 10.0**p for p in powers if p % every == 0 for m in steps]
    return [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]


def number(value: float) -> str:
    """A tick's number: plain between 0.001 and 100,000, else as a power of ten."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "−")
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    factor = value / 10.0**exponent
    power = f"10{str(exponent).translate(_SUPERSCRIPT)}"
    return power if abs(factor - 1) < 1e-6 else f"{factor:.3g}·{power}".replace("-", "−")


def count(value: float) -> str:
    """A number of parameters or tokens: 350M, 1.2B, 15T."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
